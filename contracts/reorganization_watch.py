"""What is pending of one account, with what reorganizations took out put back in flight."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from contracts.node_rpc import NodeRpc, TransactionReceipt, number_of
from contracts.pending_transactions import (
    PendingFile,
    PendingTransaction,
    PendingTransactions,
)

# Two epochs of Ethereum's consensus. Deeper blocks are final there.
WATCHED_BLOCKS = 64

_log = logging.getLogger(__name__)


class ReorganizationWatch:
    """Checks that each transaction that is done stays in the chain.

    The caller holds the file's lock.
    """

    def __init__(self, node: NodeRpc, file: PendingFile, now: Callable[[], float]) -> None:
        self._node, self._file, self._now = node, file, now

    def load(self) -> PendingTransactions:
        """Load what is pending, after a look at what is watched. Raises `ChainUnreachable`."""
        return self._looked_back(self._book())

    def _looked_back(self, book: PendingTransactions) -> PendingTransactions:
        """Put back in flight what a reorganization took out.

        This asks one question, as long as the newest watched block is still there.
        """
        if not book.watched:
            return book
        newest = max(book.watched, key=lambda one: one.block)
        if self._node.block_hash(newest.block) == newest.block_hash:  # and so are all before it
            head = self._node.number("eth_blockNumber")
            watched = tuple(one for one in book.watched if head - one.block < WATCHED_BLOCKS)
            out: list[PendingTransaction] = []
        else:
            seen = [(one, self._found(one.transaction)) for one in book.watched]
            watched = tuple(
                msgspec.structs.replace(
                    one,
                    block=number_of(receipt.block_number, "blockNumber"),
                    block_hash=receipt.block_hash,
                )
                for one, receipt in seen
                if receipt is not None
            )
            out = [one.transaction for one, receipt in seen if receipt is None]
        for each in out:
            _log.warning(
                "A reorganization took out %s (%s), which was done; it is in flight again",
                each.kind,
                each.hashes[-1],
            )
        if watched == book.watched:
            return book
        again = (
            msgspec.structs.replace(each, offered_at_s=self._now(), missing_since_s=None)
            for each in out
        )
        transactions = tuple(sorted((*book.transactions, *again), key=lambda each: each.nonce))
        looked = msgspec.structs.replace(book, transactions=transactions, watched=watched)
        self._file.save(looked)
        return looked

    def _found(self, each: PendingTransaction) -> TransactionReceipt | None:
        return next(
            (
                receipt
                for signed in each.hashes
                if (receipt := self._node.receipt(signed)) is not None
            ),
            None,
        )

    def _book(self) -> PendingTransactions:
        """Load what is pending. For another chain of the same id, nothing is.

        A devnet that was started anew counts nonces from 0.
        """
        book = self._file.load()
        first = self._node.block("0x0").hash
        if book.chain == first:
            return book
        if book.transactions:
            _log.warning(
                "%d transactions belong to a chain with another first block; they are forgotten",
                len(book.transactions),
            )
        return PendingTransactions(chain=first)
