"""What a test can do to a chain, whichever it is, and clients over transports that misbehave."""

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
    """What a test can do to either chain. The client's clock is the test's own: nothing waits."""

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
        """The chain's clock moves on, the client's with it, and a block is made."""

    def stop(self, stopped: bool) -> None:
        """It answers, and makes no blocks but by `advance`."""

    def cut(self, unreachable: bool) -> None:
        """It does not answer."""

    def forget(self, transaction: str) -> None:
        """A waiting transaction is dropped, as by a node that is restarted or full."""

    def go_back(self, blocks: int) -> None:
        """A reorganization takes so many blocks out; what was in them waits nowhere."""

    def base_fee(self) -> int:
        """Of the next block, base units per gas."""

    def crowd(self) -> None:
        """A block that is so full that the next one's base fee is higher, and nothing of ours has
        room in it.
        """


class Changing:
    """A transport whose answers `change(method, answer)` turns into others."""

    def __init__(self, through: Any, change: Callable[[str, Any], Any]) -> None:
        self.url = through.url
        self._through, self._change = through, change

    def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
        return self._change(method, self._through(method, parameters))


def called(
    ground: Levers, to: Address, data: bytes, *, sender: str = "anna", value: int = 0
) -> str:
    """What a contract answers to bytes that no client of ours sends.

    Raises `ChainRefused` where it reverts.
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
    """A client that asks through a transport of the test's; while it waits, blocks come."""
    return connect(
        ChainSettings(chain_id=ground.chain_id, urls=(), confirmations=confirmations, **more),
        signer_of(dev_key(name)),
        kept,
        now=lambda: ground.now_s,
        sleep=lambda seconds: ground.advance(int(seconds)),
        transports=[transport],
    )


def book_of(kept: Path) -> PendingTransactions:
    """What a client wrote down."""
    (file,) = kept.glob("*.json")
    return msgspec.json.decode(file.read_bytes(), type=PendingTransactions)


def blocks(ground: Levers, count: int, each_s: int = 3) -> None:
    for _ in range(count):
        ground.advance(each_s)


def nonce_of(ground: Levers, name: str) -> int:
    """How many transactions of an account are in the chain."""
    return int(ground.transport("eth_getTransactionCount", (ground.account(name), "latest")), 16)
