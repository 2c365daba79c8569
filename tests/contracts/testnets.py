"""Chains for tests: the embedded EVM in this process, and anvil where `make anvil` installed it.

Both begin with the same genesis.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from contracts.chain_client import ChainClient
from contracts.client import ChainSettings, HttpTransport, connect, result_of
from contracts.devnet.agents import agent_status, is_agent
from contracts.devnet.anvil import anvil_serving
from contracts.devnet.evm import Devnet
from contracts.devnet.genesis import (
    FAUCET,
    GAS_LIMIT,
    GenesisSettings,
    dev_account,
    dev_key,
    genesis_of,
)
from contracts.devnet.rpc import Rpc
from contracts.devnet.store import SqliteStore
from contracts.endpoints import RpcTransport
from contracts.fees import GWEI
from contracts.signers import signer_of
from protocol.chain.errors import ChainUnreachable
from protocol.chain.keccak import Address

ANVIL = Path(__file__).parents[2] / ".anvil" / "node_modules" / ".bin" / "anvil"
NO_ANVIL = "anvil is not installed; type: make anvil (it needs node 18 or later)"
EPOCH_S, DELAY_S = 1000, 100
NAMES = ("owner", "settler 0", "settler 1", "settler 2", "anna", "bert")
START_S = 1_790_000_000


@cache
def genesis(start_s: int = START_S, chain_id: int = 4195600) -> dict[str, Any]:
    """Return the shared genesis, which tests must not change."""
    return genesis_of(
        GenesisSettings(
            chain_id=chain_id,
            owner=dev_account("owner"),
            settlers=tuple(dev_account(f"settler {i}") for i in range(3)),
            needed=2,
            start_s=start_s,
            epoch_s=EPOCH_S,
            delay_s=DELAY_S,
            funded={dev_account(name): 10**24 for name in (*NAMES, FAUCET)},
        )
    )


class InProcessTransport:
    """The devnet's JSON-RPC without a socket.

    While `down` is set, it answers like an unreachable host. `asked` counts methods.
    """

    def __init__(self, rpc: Rpc, url: str = "http://in.process") -> None:
        self.url = url
        self.down = False
        self.asked: dict[str, int] = {}
        self._rpc = rpc

    def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
        if self.down:
            raise ChainUnreachable("connection refused")
        self.asked[method] = self.asked.get(method, 0) + 1
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
        return result_of(json.loads(self._rpc.answer(json.dumps(request).encode())), method)


class EvmTestnet:
    """A fresh embedded EVM with a block for each transaction. Only `advance` moves its clock."""

    def __init__(
        self, *, start_s: int = START_S, chain_id: int = 4195600, auto_mine: bool = True
    ) -> None:
        self.now_s = float(start_s)
        self.devnet = Devnet(genesis(start_s, chain_id), SqliteStore(None), lambda: self.now_s)
        self.rpc = Rpc(self.devnet, auto_mine=auto_mine)
        self.transport = InProcessTransport(self.rpc)
        self.chain_id = chain_id
        self._chains: dict[str, ChainClient] = {}

    def chain(self, name: str) -> ChainClient:
        if name not in self._chains:
            self._chains[name] = self.client(name)
        return self._chains[name]

    def client(
        self,
        name: str,
        *,
        profile: str = "hypergpu",
        kept: Path | None = None,
        confirmations: int = 1,
    ) -> ChainClient:
        return connect(
            ChainSettings(
                profile=profile, chain_id=self.chain_id, urls=(), confirmations=confirmations
            ),
            signer_of(dev_key(name)),
            kept,
            now=lambda: self.now_s,
            sleep=self._sleep,
            transports=[self.transport],
        )

    def _sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def account(self, name: str) -> Address:
        return dev_account(name)

    def advance(self, seconds: int) -> None:
        self.now_s = max(self.now_s, self.devnet.head.timestamp) + seconds
        self.devnet.mine()

    def pause_mining(self, paused: bool) -> None:
        self.rpc.auto_mine = not paused
        if not paused:
            self.devnet.mine()

    def set_unreachable(self, unreachable: bool) -> None:
        self.transport.down = unreachable

    def drop_transaction(self, transaction: str) -> None:
        assert self.devnet.drop(bytes.fromhex(transaction[2:]))

    def reorganize(self, blocks: int) -> None:
        self.devnet.go_back(self.devnet.head.block_number - blocks)

    def base_fee(self) -> int:
        return self.devnet.base_fee()

    def raise_base_fee(self) -> None:
        """Fill a block with calldata, whose gas takes no time to execute."""
        signer = signer_of(dev_key("bert"))
        limit = self.devnet.head.gas_limit
        raw = signer.sign_transaction(
            {
                "chainId": self.chain_id,
                "nonce": self.devnet.nonce(bytes.fromhex(signer.address[2:])),
                "to": signer.address,
                "value": 0,
                # 16 gas a byte (EIP-2028); no transaction of ours fits into the rest.
                "data": b"\xff" * ((limit - 21_000 - 50_000) // 16),
                "gas": limit,
                "maxFeePerGas": 10_000 * GWEI,
                "maxPriorityFeePerGas": 100 * GWEI,
            }
        ).raw_transaction
        self.devnet.submit(raw)
        self.advance(3)


class AnvilTestnet:
    """A running anvil, reset to its first block."""

    def __init__(self, url: str, chain_id: int) -> None:
        self.chain_id = chain_id
        self.now_s = time.time()
        self.transport = InterruptibleTransport(HttpTransport(url))
        self._chains: dict[str, ChainClient] = {}
        self._first = self.transport("evm_snapshot", ())

    def reset(self) -> None:
        self.transport.down = False
        self.transport("evm_setAutomine", (True,))
        self.transport("anvil_dropAllTransactions", ())
        self.transport("evm_revert", (self._first,))
        self._first = self.transport("evm_snapshot", ())
        self._chains.clear()

    def chain(self, name: str) -> ChainClient:
        if name not in self._chains:
            self._chains[name] = self.client(name)
        return self._chains[name]

    def client(
        self,
        name: str,
        *,
        profile: str = "hypergpu",
        kept: Path | None = None,
        confirmations: int = 1,
    ) -> ChainClient:
        return connect(
            ChainSettings(
                profile=profile, chain_id=self.chain_id, urls=(), confirmations=confirmations
            ),
            signer_of(dev_key(name)),
            kept,
            now=lambda: self.now_s,
            sleep=self._sleep,
            transports=[self.transport],
        )

    def _sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def account(self, name: str) -> Address:
        return dev_account(name)

    def advance(self, seconds: int) -> None:
        self.now_s += seconds
        self.transport("evm_increaseTime", (seconds,))
        self.transport("evm_mine", ())

    def pause_mining(self, paused: bool) -> None:
        self.transport("evm_setAutomine", (not paused,))
        if not paused:
            self.transport("evm_mine", ())

    def set_unreachable(self, unreachable: bool) -> None:
        self.transport.down = unreachable

    def drop_transaction(self, transaction: str) -> None:
        assert self.transport("anvil_dropTransaction", (transaction,)) is not None

    def reorganize(self, blocks: int) -> None:
        self.transport("anvil_rollback", (blocks,))

    def base_fee(self) -> int:
        block = self.transport("eth_getBlockByNumber", ("pending", False))
        return int(block["baseFeePerGas"], 16)

    def raise_base_fee(self) -> None:
        """Set a higher base fee, and make a block that has no room for our transactions."""
        last = int(self.transport("eth_getBlockByNumber", ("latest", False))["baseFeePerGas"], 16)
        self.transport("anvil_setNextBlockBaseFeePerGas", (hex(last * 9 // 8),))
        # No transaction of ours fits into this limit.
        self.transport("evm_setBlockGasLimit", (hex(21_000),))
        self.advance(3)
        self.transport("evm_setBlockGasLimit", (hex(GAS_LIMIT),))


class InterruptibleTransport:
    """A transport that a test can make unreachable.

    anvil lacks the `agent_*` methods. This class answers them from the registry, as the devnet
    does.
    """

    def __init__(self, through: RpcTransport) -> None:
        self.url = through.url
        self.down = False
        self._through = through

    def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
        if self.down:
            raise ChainUnreachable("connection refused")
        if method == "agent_isAgentAccount":
            return is_agent(self._call, parameters[0])
        if method == "agent_getStatus":
            return agent_status(self._call, parameters[0])
        return self._through(method, parameters)

    def _call(self, to: Address, data: bytes) -> bytes:
        return bytes.fromhex(
            self._through("eth_call", ({"to": to, "data": "0x" + data.hex()}, "latest"))[2:]
        )


@contextmanager
def anvil() -> Iterator[AnvilTestnet]:
    """Run anvil with our genesis until the block ends."""
    found = genesis(int(time.time()) - 10 * EPOCH_S)
    with anvil_serving(ANVIL, found) as url:
        yield AnvilTestnet(url, found["config"]["chainId"])
