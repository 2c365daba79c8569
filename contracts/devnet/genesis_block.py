"""The beginning of a chain on py-evm: its rules, its first block, and deployed contracts."""

from __future__ import annotations

from typing import Any

from eth.chains.base import MiningChain
from eth.constants import BLANK_ROOT_HASH, ZERO_ADDRESS
from eth.db.atomic import AtomicDB
from eth.vm.forks.cancun import CancunVM
from eth_keys import keys

from contracts.devnet.reverts import refused

_MERGED: dict[str, Any] = {"receipt_root": BLANK_ROOT_HASH, "transaction_root": BLANK_ROOT_HASH}


def chain_class(chain_id: int) -> Any:
    """Return py-evm's class of a chain that has these rules from its first block on."""
    return MiningChain.configure(
        __name__="Devnet", vm_configuration=((0, CancunVM),), chain_id=chain_id
    )


def first_header(genesis: dict[str, Any]) -> dict[str, Any]:
    """Convert block 0 to py-evm's format."""
    return {
        "difficulty": 0,
        "gas_limit": int(genesis["gasLimit"], 16),
        "timestamp": int(genesis["timestamp"], 16),
        "base_fee_per_gas": int(genesis["baseFeePerGas"], 16),
        "coinbase": ZERO_ADDRESS,
        "extra_data": bytes.fromhex(genesis["extraData"][2:]),
        **_MERGED,
    }


def first_state(genesis: dict[str, Any]) -> dict[bytes, dict[str, Any]]:
    """Convert the first accounts to py-evm's format."""
    return {
        bytes.fromhex(account[2:]): {
            "balance": int(entry.get("balance", "0x0"), 16),
            "nonce": int(entry.get("nonce", "0x0"), 16),
            "code": bytes.fromhex(entry.get("code", "0x")[2:]),
            "storage": {
                int(slot, 16): int(value, 16) for slot, value in entry.get("storage", {}).items()
            },
        }
        for account, entry in genesis["alloc"].items()
    }


def deployed(
    init_code: bytes, chain_id: int, at_s: int, slots: int
) -> tuple[bytes, dict[int, int]]:
    """Run a constructor. Returns the code, and the first `slots` slots of storage.

    Raises `ValueError` if the constructor refuses.
    """
    key = keys.PrivateKey(b"\x01" * 32)
    account = key.public_key.to_canonical_address()
    state = {account: {"balance": 10**24, "nonce": 0, "code": b"", "storage": {}}}
    header = {
        "difficulty": 0,
        "gas_limit": 100_000_000,
        "timestamp": at_s - 1,
        "base_fee_per_gas": 10**9,
        **_MERGED,
    }
    chain = chain_class(chain_id).from_genesis(AtomicDB(), header, state)
    unsigned = (
        chain.get_vm()
        .get_transaction_builder()
        .new_unsigned_dynamic_fee_transaction(
            chain_id=chain_id,
            nonce=0,
            max_priority_fee_per_gas=1,
            max_fee_per_gas=10**10,
            gas=30_000_000,
            to=b"",
            value=0,
            data=init_code,
            access_list=(),
        )
    )
    _, _, computation = chain.apply_transaction(unsigned.as_signed_transaction(key))
    if computation.is_error:
        raise ValueError(
            f"the constructor refuses: {refused(computation.error, computation.output)}"
        )
    where = computation.msg.storage_address
    left = chain.get_vm(chain.header).state
    storage = {slot: left.get_storage(where, slot) for slot in range(slots)}
    return bytes(left.get_code(where)), {slot: value for slot, value in storage.items() if value}
