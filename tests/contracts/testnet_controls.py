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


class ControlledTestnet(Protocol):
    """A chain whose clock, mining and reachability a test controls.

    The test owns the client's clock too, so nothing waits.
    """

    now_s: float
    chain_id: int
    # An RpcTransport with an attribute `down`.
    transport: Any

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

    def pause_mining(self, paused: bool) -> None:
        """Make blocks by `advance` only; the chain still answers."""

    def set_unreachable(self, unreachable: bool) -> None:
        """Make the chain unreachable."""

    def drop_transaction(self, transaction: str) -> None:
        """Drop a waiting transaction, as a node does that restarts or is full."""

    def reorganize(self, blocks: int) -> None:
        """Remove the last blocks, as a reorganization does. Their transactions are lost."""

    def base_fee(self) -> int:
        """Return the next block's base fee, in base units per gas."""

    def raise_base_fee(self) -> None:
        """Make a block so full that the next base fee is higher, without a transaction of ours."""


class AlteringTransport:
    """A transport that changes answers by `change(method, answer)`."""

    def __init__(self, through: Any, change: Callable[[str, Any], Any]) -> None:
        self.url = through.url
        self._through, self._change = through, change

    def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
        return self._change(method, self._through(method, parameters))


def call_raw(
    testnet: ControlledTestnet, to: Address, data: bytes, *, sender: str = "anna", value: int = 0
) -> str:
    """Call a contract with bytes that our clients never send.

    Raises `ChainRefused` if the contract reverts.
    """
    asked = {
        "from": testnet.account(sender),
        "to": to,
        "data": "0x" + data.hex(),
        "value": hex(value),
        "gas": hex(CALL_GAS),
    }
    try:
        return str(testnet.transport("eth_call", (asked, "latest")))
    except RpcError as error:
        raise refusal(error) from None


def client_over(
    transport: Any,
    testnet: ControlledTestnet,
    name: str,
    kept: Path | None,
    *,
    confirmations: int = 1,
    **more: Any,
) -> ChainClient:
    """Make a client over the test's transport. Blocks come while the client waits."""
    return connect(
        ChainSettings(chain_id=testnet.chain_id, urls=(), confirmations=confirmations, **more),
        signer_of(dev_key(name)),
        kept,
        now=lambda: testnet.now_s,
        sleep=lambda seconds: testnet.advance(int(seconds)),
        transports=[transport],
    )


def pending_of(kept: Path) -> PendingTransactions:
    """Read a client's file of pending transactions."""
    (file,) = kept.glob("*.json")
    return msgspec.json.decode(file.read_bytes(), type=PendingTransactions)


def make_blocks(testnet: ControlledTestnet, count: int, each_s: int = 3) -> None:
    for _ in range(count):
        testnet.advance(each_s)


def nonce_of(testnet: ControlledTestnet, name: str) -> int:
    """Return how many transactions of an account are in the chain."""
    return int(testnet.transport("eth_getTransactionCount", (testnet.account(name), "latest")), 16)
