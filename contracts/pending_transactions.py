"""The transactions that are signed and not settled, on disk.

A transaction is written before it is offered to the chain, so a restart at any moment knows about
it. The file is locked while it is used: the daemon and a command may hold the same wallet, and
together they own its nonce.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from contracts.fees import Fees
from protocol.chain.port import SentTransaction
from protocol.errors import UserError


class PendingTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """The transaction of one nonce.

    `hashes` are the hashes of all signed versions in their order. Any version may be included. Only
    one transaction of a kind is pending about one `subject`. `proof` is the topic of the event that
    shows its effect; "" if the state is read instead. `raw` is the last signed version. Times are
    unix seconds. `block` is the head at the last offer.
    """

    kind: str
    subject: str
    nonce: int
    to: str
    data: str
    value: int
    gas: int
    fees: Fees
    hashes: tuple[str, ...]
    raw: str
    proof: str
    offered_at_s: float
    block: int
    missing_since_s: float | None = None

    @property
    def sent(self) -> SentTransaction:
        return SentTransaction(kind=self.kind, nonce=self.nonce, hash=self.hashes[0])


class WatchedTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction that is done, and its block. A deep reorganization may still take it out."""

    transaction: PendingTransaction
    block: int
    block_hash: str


class PendingTransactions(msgspec.Struct, frozen=True, kw_only=True):
    """What is pending of one account on one chain, by nonce, and what ended lately.

    `chain` is the hash of block 0, since another chain of the same id has other nonces.
    """

    chain: str = ""
    transactions: tuple[PendingTransaction, ...] = ()
    watched: tuple[WatchedTransaction, ...] = ()


class PendingFile:
    """The file of pending transactions.

    Without a path they are in memory, for tests and for clients that only read.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._memory = PendingTransactions()
        self._thread = threading.RLock()
        self._depth = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Exclude all other readers and writers, in this process and in others.

        The same thread may enter again.
        """
        with self._thread:
            self._depth += 1
            try:
                if self._path is None or self._depth > 1:
                    yield
                    return
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                handle = os.open(
                    self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
                )
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX)
                    yield
                finally:
                    # This releases the lock.
                    os.close(handle)
            finally:
                self._depth -= 1

    def load(self) -> PendingTransactions:
        """Read the file. Raises `UserError("PENDING_FILE")` for a damaged one.

        A damaged file is not skipped, since its transactions may still be in flight.
        """
        if self._path is None:
            return self._memory
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=PendingTransactions)
        except FileNotFoundError:
            return PendingTransactions()
        except msgspec.DecodeError as error:
            raise UserError(
                "PENDING_FILE",
                f"{self._path} is damaged.",
                why="it lists this wallet's transactions in flight, and without it they could be "
                f"sent twice ({error})",
                fix="wait a few minutes until no transaction is in flight, then: "
                f"mv {self._path} {self._path}.damaged",
            ) from None

    def save(self, book: PendingTransactions) -> None:
        """Write the file, as a whole or not at all. It is durable on return.

        Raises `OSError` if the disk refuses; then nothing may be sent.
        """
        if self._path is None:
            self._memory = book
            return
        draft = self._path.with_name(f".draft-{self._path.name}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(book))
            file.flush()
            os.fsync(handle)
        draft.rename(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
