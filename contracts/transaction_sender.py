"""The one owner of an account's nonce, which sees each transaction through to its end.

The rules are:

* A transaction is on disk before it is offered to a node.
* One kind of transaction about one subject is in flight once. Another request for the same returns
  the one in flight.
* A missing receipt is not a failure. The hash is kept, and looked for by the next process, too.
* A transaction that the node forgot is offered again with the same bytes.
* A transaction that is stuck while blocks come is signed again, with the same nonce and a higher
  fee, up to a limit. While the chain makes no blocks, no fee is raised.
* An end is reported once: the transaction is `confirmations` deep and its effect was seen, or it
  reverted, or another transaction used its nonce.
* A transaction that is done is watched for `WATCHED_BLOCKS` more. If a deep reorganization takes it
  out, it is in flight again with the same bytes, and its end is reported again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from contracts.fees import GWEI, capped, fees_for, raised
from contracts.node_rpc import NodeRpc, TransactionReceipt, number_of
from contracts.pending_transactions import (
    PendingFile,
    PendingTransaction,
    WatchedTransaction,
)
from contracts.reorganization_watch import ReorganizationWatch
from contracts.transaction_broadcaster import TransactionBroadcaster
from protocol.chain.errors import ChainRefused, ChainUnreachable
from protocol.chain.keccak import Address
from protocol.chain.port import SentTransaction, SettledTransaction

# A node sends one of each kind. More in flight means that a program sends in a loop.
MAX_PENDING = 32
# Ten blocks of Plumise: what offered enough is in by then.
RAISE_AFTER_S = 30.0
# Blocks must have come as well: while the chain stands still, a higher fee buys nothing.
RAISE_AFTER_BLOCKS = 3
# How long a used nonce may go without a receipt of ours: an endpoint that is behind the others
# catches up within this time.
MISSING_S = 60.0
# A factor on the estimate: between estimate and inclusion, storage may be written for the first
# time, which costs more.
GAS_MARGIN = (5, 4)

_log = logging.getLogger(__name__)


class TransactionSender:
    """Sends the transactions of one account.

    `effect` says why an included transaction did not do what it was sent for, and is "" if it did.
    `max_fee_per_gas` is in base units.
    """

    def __init__(
        self,
        node: NodeRpc,
        broadcaster: TransactionBroadcaster,
        file: PendingFile,
        effect: Callable[[PendingTransaction, TransactionReceipt], str],
        *,
        now: Callable[[], float],
        confirmations: int,
        max_fee_per_gas: int,
    ) -> None:
        self._node = node
        self._broadcaster = broadcaster
        self._file = file
        self._watch = ReorganizationWatch(node, file, now)
        self._effect = effect
        self._now = now
        self._confirmations = confirmations
        self._max_fee_per_gas = max_fee_per_gas

    @property
    def account(self) -> Address:
        return self._broadcaster.account

    def pending(self) -> tuple[SentTransaction, ...]:
        with self._file.held():
            return tuple(each.sent for each in self._file.load().transactions)

    def send(
        self, kind: str, subject: str, to: Address, data: bytes, *, value: int = 0, proof: str = ""
    ) -> SentTransaction:
        """Sign a transaction, write it to disk, and offer it.

        `proof` is the topic of the event that shows the effect.

        Raises:
            ChainRefused: it would fail. Nothing is in flight.
            ChainUnreachable: no node answered. Nothing is in flight.
        """
        with self._file.held():
            book = self._watch.load()
            for each in book.transactions:
                if (each.kind, each.subject) == (kind, subject):
                    return each.sent
            if len(book.transactions) >= MAX_PENDING:
                raise ChainRefused(f"client: {MAX_PENDING} transactions are in flight already")
            asked = {"from": self.account, "to": to, "data": "0x" + data.hex(), "value": hex(value)}
            gas = self._node.estimate(asked) * GAS_MARGIN[0] // GAS_MARGIN[1]
            fees = capped(fees_for(self._node.market()), self._max_fee_per_gas)
            used = self._node.nonce(self.account, "pending")
            head = self._node.number("eth_blockNumber")
            nonce = max([used, *(each.nonce + 1 for each in book.transactions)])
            raw, signed = self._broadcaster.sign(nonce, to, asked["data"], value, gas, fees)
            transaction = PendingTransaction(
                kind=kind,
                subject=subject,
                nonce=nonce,
                to=to,
                data=asked["data"],
                value=value,
                gas=gas,
                fees=fees,
                hashes=(signed,),
                raw=raw,
                proof=proof,
                offered_at_s=self._now(),
                block=head,
            )
            self._file.save(
                msgspec.structs.replace(book, transactions=(*book.transactions, transaction))
            )
            if (refused := self._broadcaster.offer(transaction)) is not None:
                # No node can have it, so it is as if it had never been signed.
                self._file.save(book)
                raise refused
            return transaction.sent

    def reconcile(self) -> tuple[SettledTransaction, ...]:
        """Look at each transaction in flight, and return those that ended.

        Raises `ChainUnreachable`; then everything stays as it was, and the next call reports it.
        """
        with self._file.held():
            book = self._watch.load()
            if not book.transactions:
                return ()
            head = self._node.number("eth_blockNumber")
            used = self._node.nonce(self.account, "latest")
            kept: list[PendingTransaction] = []
            ended: list[SettledTransaction] = []
            watched = list(book.watched)
            for each in book.transactions:
                after = self._look_after(each, head, used)
                if isinstance(after, PendingTransaction):
                    kept.append(after)
                    continue
                ended_now, block_hash = after
                ended.append(ended_now)
                if ended_now.done:
                    watched.append(
                        WatchedTransaction(
                            transaction=each, block=ended_now.block, block_hash=block_hash
                        )
                    )
            if ended or kept != list(book.transactions):
                self._file.save(
                    msgspec.structs.replace(book, transactions=tuple(kept), watched=tuple(watched))
                )
            return tuple(ended)

    def _look_after(
        self, each: PendingTransaction, head: int, used: int
    ) -> PendingTransaction | tuple[SettledTransaction, str]:
        """Return the transaction as it is now, or how it ended and in which block (its hash)."""
        for signed in each.hashes:
            receipt = self._node.receipt(signed)
            if receipt is not None:
                block = number_of(receipt.block_number, "blockNumber")
                if head - block + 1 < self._confirmations:
                    # A reorganization may still take it out.
                    return msgspec.structs.replace(each, missing_since_s=None)
                return self._ended(each, receipt, block), receipt.block_hash
        if used > each.nonce:
            since = each.missing_since_s if each.missing_since_s is not None else self._now()
            if self._now() - since >= MISSING_S:
                return SettledTransaction(
                    sent=each.sent,
                    done=False,
                    reason=f"another transaction took its nonce, {each.nonce}",
                ), ""
            return msgspec.structs.replace(each, missing_since_s=since)
        each = msgspec.structs.replace(each, missing_since_s=None)
        if (
            self._now() - each.offered_at_s >= RAISE_AFTER_S
            and head - each.block >= RAISE_AFTER_BLOCKS
        ):
            return self._raise(each, head)
        if not self._node.knows(each.hashes[-1]):
            self._broadcaster.offer(each)
        return each

    def _raise(self, each: PendingTransaction, head: int) -> PendingTransaction:
        fees = capped(raised(each.fees, self._node.market()), self._max_fee_per_gas)
        if fees.most <= each.fees.most:
            _log.warning(
                "%s waits: its fee is at the limit of %d gwei",
                each.kind,
                self._max_fee_per_gas // GWEI,
            )
            self._broadcaster.offer(each)
            return msgspec.structs.replace(each, offered_at_s=self._now(), block=head)
        raw, signed = self._broadcaster.sign(
            each.nonce, each.to, each.data, each.value, each.gas, fees
        )
        higher = msgspec.structs.replace(
            each,
            fees=fees,
            raw=raw,
            hashes=(*each.hashes, signed),
            offered_at_s=self._now(),
            block=head,
        )
        # It is on disk before it is offered, so that either version is recognized when included.
        book = self._file.load()
        self._file.save(
            msgspec.structs.replace(
                book,
                transactions=tuple(
                    higher if old.nonce == higher.nonce else old for old in book.transactions
                ),
            )
        )
        self._broadcaster.offer(higher)
        return higher

    def _ended(
        self, each: PendingTransaction, receipt: TransactionReceipt, block: int
    ) -> SettledTransaction:
        gas = number_of(receipt.gas_used, "gasUsed")
        about = SettledTransaction(
            sent=each.sent,
            done=True,
            hash=receipt.transaction_hash,
            block=block,
            gas=gas,
            fee=gas * number_of(receipt.effective_gas_price, "effectiveGasPrice"),
        )
        if number_of(receipt.status, "status") != 1:
            return msgspec.structs.replace(about, done=False, reason=self._reason(each, receipt))
        reason = self._effect(each, receipt)
        return msgspec.structs.replace(about, done=not reason, reason=reason)

    def _reason(self, each: PendingTransaction, receipt: TransactionReceipt) -> str:
        """Find out why it reverted, by the same call in its block: a receipt does not say."""
        asked = {
            "from": self.account,
            "to": each.to,
            "data": each.data,
            "value": hex(each.value),
            "gas": hex(each.gas),
        }
        try:
            self._node.replay(asked, receipt.block_number)
        except ChainRefused as refused:
            return refused.reason
        except ChainUnreachable:
            # The node keeps no old state.
            pass
        return "it reverted, and the node does not say why"
