"""What was signed and is not settled, on disk: written before it is offered to the chain, so that a
restart at any instant knows of it.

The file is locked while it is used, since the daemon and a command may hold the same wallet:
together they are one owner of the nonce.
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
    """One nonce's transaction.

    `hashes` are all that were signed for it, the first one first: any of them may be the one that
    is included.

    `subject` is whom or what it is about: one kind of thing about one subject is in flight once.
    `proof` is the topic of the event that shows its effect, "" where state is read instead. `raw`
    is the last signed transaction. Times in unix seconds, `block` the head at the last offer.
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
    """What was told to be done, and the block it is in: a deep reorganization may still take it
    out.
    """

    transaction: PendingTransaction
    block: int
    block_hash: str


class PendingTransactions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything pending of one account on one chain, by nonce, and what ended lately.

    `chain` is the hash of block 0: another chain of the same id has other nonces.
    """

    chain: str = ""
    transactions: tuple[PendingTransaction, ...] = ()
    watched: tuple[WatchedTransaction, ...] = ()


class PendingFile:
    """The book's place.

    Without a path it lives in memory, for tests and for chains that are only read.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._memory = PendingTransactions()
        self._thread = threading.RLock()
        self._depth = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else, in this process or another, reads or writes meanwhile.

        May be entered again by the same thread.
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
                    os.close(handle)  # and with it the lock
            finally:
                self._depth -= 1

    def load(self) -> PendingTransactions:
        """Raises `UserError("PENDING_FILE")` for a file that is damaged: what it held may still be
        in flight, so it is not passed over.
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
                why=f"it says which transactions of this wallet are on their way, and they may be paid twice where that is forgotten ({error})",
                fix=f"wait until none is (a few minutes), then: mv {self._path} {self._path}.damaged",
            ) from None

    def save(self, book: PendingTransactions) -> None:
        """Durable on return, whole or not at all.

        Raises `OSError` when the medium refuses; then nothing may be sent.
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
