"""The devnet's genesis, in geth's format: the contracts at their addresses, as constructed.

Each constructor runs once in a temporary EVM, and the code and storage that it leaves are copied.
So the contracts' own rules set the owner, the settlers and the times, and no code computes storage
slots. The same file starts anvil (`anvil --init FILE`) and geth.
"""

from __future__ import annotations

from typing import Any

import msgspec
from eth_abi import encode
from eth_keys import keys

from contracts.artifacts import PLACES, artifact, slots_of
from contracts.devnet.genesis_block import deployed
from protocol.chain.keccak import Address, account_bytes, address_of, keccak256

# In base units.
COIN = 10**18
GAS_LIMIT = 30_000_000
FIRST_BASE_FEE = 10**9
# chainlist has no chain with this id, so a transaction for the devnet is worth nothing elsewhere.
DEVNET_CHAIN_ID = 4195600
FAUCET = "faucet"
# The rules of the genesis, by anvil's name for them.
HARDFORK = "cancun"


def dev_key(name: str) -> bytes:
    """Return the private key of one of the devnet's accounts.

    The key is public, so the account is worthless on any other chain.
    """
    return keccak256(b"hypergpu devnet " + name.encode())


def dev_account(name: str) -> Address:
    """Return the account of `dev_key(name)`."""
    return address_of(keys.PrivateKey(dev_key(name)).public_key.to_canonical_address())


class GenesisSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The choices of a devnet. Times are seconds; `funded` maps accounts to base units."""

    chain_id: int = DEVNET_CHAIN_ID
    owner: Address
    settlers: tuple[Address, ...]
    needed: int
    start_s: int
    epoch_s: int = 3600
    delay_s: int = 600
    funded: dict[Address, int] = {}


def foreign_contracts(genesis: dict[str, Any]) -> tuple[str, ...]:
    """Return the contracts whose code in `genesis` differs from this version's.

    Raises `KeyError`, `ValueError` or `TypeError` for a file that is not a devnet's genesis.
    """

    def differs(contract: str, place: str) -> bool:
        code = bytes.fromhex(genesis["alloc"][place]["code"].removeprefix("0x"))
        # The values that the constructor fixed follow the code.
        return not code.startswith(
            bytes.fromhex(artifact(contract).bytecode_runtime.removeprefix("0x"))
        )

    return tuple(contract for contract, place in PLACES.items() if differs(contract, place))


def genesis_of(settings: GenesisSettings) -> dict[str, Any]:
    """Make a genesis in geth's format. Raises `ValueError` for settlers that the pool refuses."""
    alloc: dict[str, dict[str, Any]] = {}
    for contract, place in PLACES.items():
        found = artifact(contract)
        arguments = b""
        if contract == "reward_pool":
            arguments = encode(
                ["address", "address[]", "uint256", "uint256", "uint256", "uint256"],
                [
                    settings.owner,
                    list(settings.settlers),
                    settings.needed,
                    settings.start_s,
                    settings.epoch_s,
                    settings.delay_s,
                ],
            )
        code, storage = deployed(
            bytes.fromhex(found.bytecode.removeprefix("0x")) + arguments,
            settings.chain_id,
            settings.start_s,
            slots_of(found),
        )
        alloc[place] = {
            "balance": "0x0",
            "nonce": "0x1",
            "code": "0x" + code.hex(),
            "storage": {f"0x{slot:064x}": f"0x{value:064x}" for slot, value in storage.items()},
        }
    for account, amount in settings.funded.items():
        alloc[address_of(account_bytes(account))] = {"balance": hex(amount)}
    return {
        "config": {
            "chainId": settings.chain_id,
            **{
                f"{fork}Block": 0
                for fork in (
                    "homestead",
                    "eip150",
                    "eip155",
                    "eip158",
                    "byzantium",
                    "constantinople",
                )
            },
            **{f"{fork}Block": 0 for fork in ("petersburg", "istanbul", "berlin", "london")},
            "terminalTotalDifficulty": 0,
            "shanghaiTime": 0,
            "cancunTime": 0,
        },
        "nonce": "0x0",
        "timestamp": hex(settings.start_s),
        "extraData": "0x",
        "gasLimit": hex(GAS_LIMIT),
        "difficulty": "0x0",
        "baseFeePerGas": hex(FIRST_BASE_FEE),
        "mixHash": "0x" + "00" * 32,
        "coinbase": "0x" + "00" * 20,
        "alloc": alloc,
    }
