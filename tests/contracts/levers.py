"""Controls of a chain for tests, and clients over transports that misbehave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from contracts.abi import refusal
from contracts.chain_client import ChainClient
from contracts.chain_settings import ChainSettings
from contracts.client import connect
from contracts.devnet.genesis import dev_key
from contracts.endpoints import RpcError
from contracts.pending_transactions import PendingTransactions
from contracts.signers import signer_of
from protocol.chain.keccak import Address

CALL_GAS = 5_000_000


class Levers(Protocol):
    """What a test can do to either chain. The test owns the client's clock, so nothing waits."""

    now_s: float
    chain_id: int
    transport: Any  # a Transport with `down`

    def chain(self, name: str) -> ChainClient: ...

    def client(
        self,
        name: str,
        *,
        profile: str = "hypergpu",
        kept: Path | None = None,
        confirmations: int = 1,
    ) -> ChainClient: ...

    def account(self, name: str) -> Address: ...

    def advance(self, seconds: int) -> None:
        """Advance the chain's clock and the client's, and make a block."""

    def stop(self, stopped: bool) -> None:
        """Make blocks by `advance` only; the chain still answers."""

    def cut(self, unreachable: bool) -> None:
        """Make the chain unreachable."""

    def forget(self, transaction: str) -> None:
        """Drop a waiting transaction, as a node does that restarts or is full."""

    def go_back(self, blocks: int) -> None:
        """Take out some blocks, as a reorganization does. Their transactions are lost."""

    def base_fee(self) -> int:
        """Return the next block's base fee, in base units per gas."""

    def crowd(self) -> None:
        """Make a block so full that the next base fee is higher, without a transaction of ours."""


class Changing:
    """A transport that changes answers by `change(method, answer)`."""

    def __init__(self, through: Any, change: Callable[[str, Any], Any]) -> None:
        self.url = through.url
        self._through, self._change = through, change

    def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
        return self._change(method, self._through(method, parameters))


def called(
    ground: Levers, to: Address, data: bytes, *, sender: str = "anna", value: int = 0
) -> str:
    """Call a contract with bytes that our clients never send.

    Raises `ChainRefused` if the contract reverts.
    """
    asked = {
        "from": ground.account(sender),
        "to": to,
        "data": "0x" + data.hex(),
        "value": hex(value),
        "gas": hex(CALL_GAS),
    }
    try:
        return str(ground.transport("eth_call", (asked, "latest")))
    except RpcError as error:
        raise refusal(error) from None


def over(
    transport: Any,
    ground: Levers,
    name: str,
    kept: Path | None,
    *,
    confirmations: int = 1,
    **more: Any,
) -> ChainClient:
    """Make a client over the test's transport. Blocks come while the client waits."""
    return connect(
        ChainSettings(chain_id=ground.chain_id, urls=(), confirmations=confirmations, **more),
        signer_of(dev_key(name)),
        kept,
        now=lambda: ground.now_s,
        sleep=lambda seconds: ground.advance(int(seconds)),
        transports=[transport],
    )


def book_of(kept: Path) -> PendingTransactions:
    """Read a client's file of pending transactions."""
    (file,) = kept.glob("*.json")
    return msgspec.json.decode(file.read_bytes(), type=PendingTransactions)


def blocks(ground: Levers, count: int, each_s: int = 3) -> None:
    for _ in range(count):
        ground.advance(each_s)


def nonce_of(ground: Levers, name: str) -> int:
    """Return how many transactions of an account are in the chain."""
    return int(ground.transport("eth_getTransactionCount", (ground.account(name), "latest")), 16)
