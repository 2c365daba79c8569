"""The one owner of an account's nonce: signs, writes down, offers, and sees everything through to
its end.

Rules. A transaction is on disk before it is offered. One kind of thing about one subject is in
flight once: asking again gives what is in flight. A receipt that does not come is not a failure:
the hash is kept and looked for, by the next process too. What the node forgot is offered again, the
same bytes. What is stuck while blocks come is signed again with the same nonce at a higher fee, up
to the ceiling. In a chain that makes no blocks nothing is raised. An end is told once: included
`confirmations` deep and its effect seen, reverted with its reason, or its nonce taken. What is done
is watched for `WATCHED_BLOCKS` more: where a deep reorganization took it out it is in flight again,
the same bytes, and told again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from contracts.abi import refusal
from contracts.endpoints import RpcError
from contracts.fees import GWEI, Fees, capped, fees_for, raised
from contracts.node_rpc import NodeRpc, TransactionReceipt, number_of
from contracts.pending_transactions import (
    PendingFile,
    PendingTransaction,
    PendingTransactions,
    WatchedTransaction,
)
from protocol.chain.errors import ChainRefused, ChainUnreachable
from protocol.chain.keccak import Address, keccak256
from protocol.chain.port import SentTransaction, SettledTransaction

# A node sends one of each kind; more in flight means that something asks in a loop.
MOST_PENDING = 32
# Ten blocks of Plumise: what offered enough is in by then.
RAISE_AFTER_S = 30.0
# And blocks must have come: in a chain that stands still a higher fee buys nothing.
RAISE_AFTER_BLOCKS = 3
# Two epochs of Ethereum's consensus: what is deeper there is final.
WATCHED_BLOCKS = 64
# A nonce is used and no receipt of ours shows: an endpoint behind the others catches up within
# that.
MISSING_S = 60.0
# Of the estimate: storage may be written for the first time between estimate and inclusion.
GAS_MARGIN = (5, 4)
# Base units per gas; a heartbeat then costs at most 0.05 coins.
DEFAULT_CEILING = 500 * GWEI

_log = logging.getLogger(__name__)


class TransactionSigner(Protocol):
    """A wallet: eth-account's `LocalAccount` is one."""

    @property
    def address(self) -> str: ...

    def sign_transaction(self, transaction_dict: dict[str, Any], /) -> Any:
        """With the attribute `raw_transaction`, bytes."""


class TransactionSender:
    """`effect` looks whether a transaction that was included did what it was sent for: "" when it
    did, else why not.
    """

    def __init__(
        self,
        node: NodeRpc,
        signer: TransactionSigner,
        chain_id: int,
        file: PendingFile,
        effect: Callable[[PendingTransaction, TransactionReceipt], str],
        *,
        now: Callable[[], float],
        confirmations: int,
        ceiling: int = DEFAULT_CEILING,
    ) -> None:
        self._node = node
        self._signer = signer
        self._chain_id = chain_id
        self._file = file
        self._effect = effect
        self._now = now
        self._confirmations = confirmations
        self._ceiling = ceiling

    @property
    def account(self) -> Address:
        return self._signer.address

    def pending(self) -> tuple[SentTransaction, ...]:
        with self._file.held():
            return tuple(each.sent for each in self._file.load().transactions)

    def send(
        self, kind: str, subject: str, to: Address, data: bytes, *, value: int = 0, proof: str = ""
    ) -> SentTransaction:
        """Raises `ChainRefused` when it would fail, `ChainUnreachable` when nothing was signed.

        After that it only returns: it is written down.
        """
        with self._file.held():
            book = self._looked_back(self._book())
            for each in book.transactions:
                if (each.kind, each.subject) == (kind, subject):
                    return each.sent
            if len(book.transactions) >= MOST_PENDING:
                raise ChainRefused(f"client: {MOST_PENDING} transactions are in flight already")
            asked = {"from": self.account, "to": to, "data": "0x" + data.hex(), "value": hex(value)}
            gas = self._node.estimate(asked) * GAS_MARGIN[0] // GAS_MARGIN[1]
            fees = capped(fees_for(self._node.market()), self._ceiling)
            used = self._node.nonce(self.account, "pending")
            head = self._node.number("eth_blockNumber")
            nonce = max([used, *(each.nonce + 1 for each in book.transactions)])
            raw, signed = self._sign(nonce, to, asked["data"], value, gas, fees)
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
            if (refused := self._offer(transaction)) is not None:
                # No node can have taken it: it is as if it had never been signed.
                self._file.save(book)
                raise refused
            return transaction.sent

    def reconcile(self) -> tuple[SettledTransaction, ...]:
        """Raises `ChainUnreachable` with everything kept; what was learnt before that is told next
        time.
        """
        with self._file.held():
            book = self._looked_back(self._book())
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
                told, block_hash = after
                ended.append(told)
                if told.done:
                    watched.append(
                        WatchedTransaction(
                            transaction=each, block=told.block, block_hash=block_hash
                        )
                    )
            if ended or kept != list(book.transactions):
                self._file.save(
                    msgspec.structs.replace(book, transactions=tuple(kept), watched=tuple(watched))
                )
            return tuple(ended)

    def _looked_back(self, book: PendingTransactions) -> PendingTransactions:
        """The book, with what a reorganization took out in flight again.

        One question, as long as the newest block that is watched stays.
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
                "%s (%s) was taken out by a reorganization after it was told to be done; it is in flight again",
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

    def _look_after(
        self, each: PendingTransaction, head: int, used: int
    ) -> PendingTransaction | tuple[SettledTransaction, str]:
        """What it is now, or how it ended and the hash of the block in which."""
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
            self._offer(each)
        return each

    def _raise(self, each: PendingTransaction, head: int) -> PendingTransaction:
        fees = capped(raised(each.fees, self._node.market()), self._ceiling)
        if fees.most <= each.fees.most:
            _log.warning(
                "%s waits: its fee is at the ceiling of %d gwei", each.kind, self._ceiling // GWEI
            )
            self._offer(each)
            return msgspec.structs.replace(each, offered_at_s=self._now(), block=head)
        raw, signed = self._sign(each.nonce, each.to, each.data, each.value, each.gas, fees)
        higher = msgspec.structs.replace(
            each,
            fees=fees,
            raw=raw,
            hashes=(*each.hashes, signed),
            offered_at_s=self._now(),
            block=head,
        )
        # On disk before it is offered, like the first: whichever is included is recognized.
        book = self._file.load()
        self._file.save(
            msgspec.structs.replace(
                book,
                transactions=tuple(
                    higher if old.nonce == higher.nonce else old for old in book.transactions
                ),
            )
        )
        self._offer(higher)
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
        """Why it reverted: a receipt does not say, the same call in its block does."""
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
            pass  # a node that keeps no old state
        return "it reverted, and nothing says why"

    def _offer(self, each: PendingTransaction) -> ChainRefused | None:
        """Offers what is written down.

        Returns a refusal where it is sure that no node has it and none will take it.
        """
        try:
            self._node.offer(each.raw)
        except ChainUnreachable as error:
            _log.info("%s is written down and will be offered again: %s", each.kind, error)
        except RpcError as error:
            words = error.message.lower()
            if "insufficient funds" in words or "nonce too low" in words:
                # Only a first offer can be taken back: of an earlier hash some node may know.
                return (
                    refusal(error)
                    if len(each.hashes) == 1 and not self._was_included(each)
                    else None
                )
            if (
                "already known" not in words
                and "known transaction" not in words
                and "already imported" not in words
            ):
                _log.info(
                    "%s was not taken and will be offered again: %s", each.kind, error.message
                )
        return None

    def _was_included(self, each: PendingTransaction) -> bool:
        try:
            return self._node.receipt(each.hashes[0]) is not None
        except ChainUnreachable:
            return True  # not known: it stays written down

    def _sign(
        self, nonce: int, to: str, data: str, value: int, gas: int, fees: Fees
    ) -> tuple[str, str]:
        """The signed transaction and its hash."""
        transaction: dict[str, Any] = {
            "chainId": self._chain_id,
            "nonce": nonce,
            "to": to,
            "data": data,
            "value": value,
            "gas": gas,
        }
        if fees.tip is None:
            transaction |= {"gasPrice": fees.most}
        else:
            transaction |= {"maxFeePerGas": fees.most, "maxPriorityFeePerGas": fees.tip}
        raw = bytes(self._signer.sign_transaction(transaction).raw_transaction)
        return "0x" + raw.hex(), "0x" + keccak256(raw).hex()

    def _book(self) -> PendingTransactions:
        """The book, emptied when it is another chain's: a devnet that was begun anew counts nonces
        from 0.
        """
        book = self._file.load()
        first = self._node.block("0x0").hash
        if book.chain == first:
            return book
        if book.transactions:
            _log.warning(
                "%d transactions were for a chain that began with another block; they are forgotten",
                len(book.transactions),
            )
        return PendingTransactions(chain=first)
