"""Transactions that wait for a block of the devnet, with geth's rules and words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from eth.abc import SignedTransactionAPI

from contracts.devnet.reverts import RpcRefusal

# Transactions. A devnet's whole load is a few for each node and epoch.
MAX_WAITING = 4096
# geth's --txpool.pricebump of 10.
REPLACE_PERCENT = 110

Key = tuple[bytes, int]
"""A sender and a nonce."""


class TransactionPool:
    """At most one waiting transaction for each sender and nonce.

    The caller holds the devnet's lock.
    """

    def __init__(self) -> None:
        self._waiting: dict[Key, SignedTransactionAPI] = {}

    def __contains__(self, transaction: SignedTransactionAPI) -> bool:
        return transaction in self._waiting.values()

    def has(self, sender: bytes, nonce: int) -> bool:
        """Return whether a transaction of this sender and nonce waits."""
        return (sender, nonce) in self._waiting

    def find(self, transaction_hash: bytes) -> SignedTransactionAPI | None:
        """Return the waiting transaction with this hash."""
        found = (each for each in self._waiting.values() if each.hash == transaction_hash)
        return next(found, None)

    def add(self, transaction: SignedTransactionAPI) -> None:
        """Add a valid transaction, or replace one of a lower fee. Raises `RpcRefusal`."""
        key = (transaction.sender, transaction.nonce)
        before = self._waiting.get(key)
        if before is not None and not _outbids(transaction, before):
            raise RpcRefusal("replacement transaction underpriced")
        if before is None and len(self._waiting) >= MAX_WAITING:
            raise RpcRefusal("txpool is full")
        self._waiting[key] = transaction

    def remove(self, transaction: SignedTransactionAPI) -> None:
        """Remove a waiting transaction."""
        del self._waiting[transaction.sender, transaction.nonce]

    def clear(self) -> None:
        """Remove all waiting transactions."""
        self._waiting.clear()

    def payable(
        self, base_fee: int, next_nonce: Callable[[bytes], int]
    ) -> Iterator[SignedTransactionAPI]:
        """Return what can go into the next block, the highest tips first.

        Each sender's transactions come in the order of their nonces, without a gap.
        """
        ready: list[tuple[int, int, Key]] = []
        for sender in {sender for sender, _ in self._waiting}:
            nonce = next_nonce(sender)
            # A transaction comes no earlier than the sender's transaction before it.
            tip = 1 << 255
            while (
                found := self._waiting.get((sender, nonce))
            ) is not None and found.max_fee_per_gas >= base_fee:
                tip = min(tip, found.max_priority_fee_per_gas, found.max_fee_per_gas - base_fee)
                ready.append((-tip, nonce, (sender, nonce)))
                nonce += 1
        return iter([self._waiting[key] for _, _, key in sorted(ready)])


def _outbids(new: Any, old: Any) -> bool:
    return all(
        getattr(new, fee) * 100 >= getattr(old, fee) * REPLACE_PERCENT
        for fee in ("max_fee_per_gas", "max_priority_fee_per_gas")
    )
