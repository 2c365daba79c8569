"""Rounds and events in SQLite (WAL), so that the history survives `kill -9`.

A thread writes; the web side reads over a connection of its own, in another thread. Entries that
cannot be written wait in memory and are tried again, and `trouble` says why meanwhile.

A commit is not synced to the disk: a killed process loses nothing, and a power failure loses the
last seconds, which the swarm gives back. A damaged file is set aside, and a new one begins.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from daemon.observer.history.feed_event import FeedEvent
from protocol.status import RoundSummary

VERSION = 1
BUSY_S = 1.0
"""How long a write waits for another program that holds the database."""

RETRY_S = 1.0
"""Between two tries of a write that was refused."""

MAX_WAITING = 20_000
"""Entries in memory while the disk refuses, about 20 MB. The oldest go first."""

BATCH = 500
"""Entries of one commit."""

PRUNE_SHARE = 0.1
"""The share of the entries that goes when the file is full, so that pruning is rare."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rounds
    (certificate TEXT PRIMARY KEY, number INTEGER NOT NULL, at REAL NOT NULL, body BLOB NOT NULL)
    WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rounds_by_number ON rounds (number, certificate);
CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
"""

T = TypeVar("T")

# The tables, and what orders each by age.
_KEYS = {"events": "id", "rounds": "number"}

Entry = FeedEvent | RoundSummary
"""A `RoundSummary` replaces the stored one of its certificate, and keeps its date."""

_encode = msgspec.json.Encoder().encode
_rounds: msgspec.json.Decoder[RoundSummary] = msgspec.json.Decoder(RoundSummary)
_events: msgspec.json.Decoder[FeedEvent] = msgspec.json.Decoder(FeedEvent)


class HistoryUnavailable(Exception):
    """The store cannot be read or written now. The text is a sentence without a full stop."""


class HistoryStore:
    """The history of one run on disk.

    `open` and `close` block and belong to one thread; `add` never blocks and belongs to the trio
    side; the reading methods block and may be called from any thread.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        """`limit_bytes` bounds the file: the oldest tenth goes when it is reached."""
        self._path, self._limit_bytes = path, limit_bytes
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._waiting: deque[Entry] = deque(maxlen=MAX_WAITING)
        self._thread: threading.Thread | None = None
        # Replaced whole: why the store does not work now; empty while it does.
        self.trouble = ""
        # Says once that a damaged file was set aside.
        self.set_aside: Path | None = None

    def open(self) -> None:
        """Open or create the file and start to write. Sets `trouble` where that is impossible."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._prepare()
        except sqlite3.DatabaseError as error:
            self.trouble = _why(self._path, error)
        except OSError as error:
            self.trouble = f"the history {self._path} cannot be opened: {error.strerror or error}"
        self._thread = threading.Thread(target=self._write, name="history", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and end the thread. What a full disk refuses is lost."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def add(self, entry: Entry) -> None:
        """Store an entry soon."""
        self._queue.put(entry)

    # ---------------------------------------------------------------------------------- reading

    def dates(self) -> dict[str, float]:
        """Return when each stored certificate was first seen, in unix seconds."""
        rows = self._read("SELECT certificate, at FROM rounds")
        return {str(certificate): float(at) for certificate, at in rows}

    def last_id(self) -> int:
        """Return the id of the newest stored event; 0 without any."""
        ((last,),) = self._read("SELECT COALESCE(MAX(id), 0) FROM events")
        return int(last)

    def rounds(
        self, limit: int, before: tuple[int, str] | None = None, *, oldest_first: bool = False
    ) -> list[RoundSummary]:
        """Return up to `limit` rounds, the highest numbers first.

        `before` is the (number, certificate) of the last round of the page before.
        """
        order = "ASC" if oldest_first else "DESC"
        sign = ">" if oldest_first else "<"
        where = f"WHERE (number, certificate) {sign} (?, ?)" if before is not None else ""
        rows = self._read(
            f"SELECT body FROM rounds {where} ORDER BY number {order}, certificate {order} LIMIT ?",
            (*(before or ()), limit),
        )
        return self._decoded(_rounds, rows)

    def events_before(self, before: int, limit: int) -> list[FeedEvent]:
        """Return up to `limit` events with ids below `before`, the newest first."""
        rows = self._read(
            "SELECT body FROM events WHERE id < ? ORDER BY id DESC LIMIT ?", (before, limit)
        )
        return self._decoded(_events, rows)

    def events_after(self, last_id: int, limit: int) -> list[FeedEvent]:
        """Return up to `limit` events with ids above `last_id`, the oldest first."""
        rows = self._read(
            "SELECT body FROM events WHERE id > ? ORDER BY id LIMIT ?", (last_id, limit)
        )
        return self._decoded(_events, rows)

    def _read(self, query: str, values: Iterable[object] = ()) -> list[tuple[Any, ...]]:
        """Run a query. Raises `HistoryUnavailable`."""
        if self.trouble:
            raise HistoryUnavailable(self.trouble)
        try:
            with closing(self._connect()) as connection:
                return connection.execute(query, tuple(values)).fetchall()
        except sqlite3.Error as error:
            raise HistoryUnavailable(_why(self._path, error)) from None

    def _decoded(self, decoder: msgspec.json.Decoder[T], rows: list[tuple[Any, ...]]) -> list[T]:
        """Decode bodies. Raises `HistoryUnavailable` for one that another program wrote."""
        try:
            return [decoder.decode(body) for (body,) in rows]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HistoryUnavailable(
                f"the history {self._path} holds an entry that cannot be read: {error}"
            ) from None

    # ---------------------------------------------------------------------------------- writing

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)

    def _prepare(self) -> None:
        """Create the tables; set a file aside that is damaged or of another version."""
        try:
            self._create()
        except sqlite3.OperationalError:
            # The disk refuses, or another program holds the file: the file itself may be good.
            raise
        except sqlite3.DatabaseError:
            aside = self._path.with_name(f"{self._path.name}.damaged-{time.time_ns()}")
            self._path.replace(aside)
            for suffix in ("-wal", "-shm"):
                with suppress(FileNotFoundError):
                    self._path.with_name(self._path.name + suffix).unlink()
            self.set_aside = aside
            self._create()

    def _create(self) -> None:
        with closing(self._connect()) as connection:
            ((version,),) = connection.execute("PRAGMA user_version").fetchall()
            if version not in (0, VERSION):
                raise sqlite3.DatabaseError(f"version {version}")
            ((found,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
            if found != "ok":
                raise sqlite3.DatabaseError(str(found))
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version={VERSION}")

    def _write(self) -> None:
        """Write entries until `close`. The thread's whole life."""
        ended = False
        while not ended:
            try:
                entry = self._queue.get(timeout=RETRY_S if self._waiting or self.trouble else None)
                ended = entry is None
                if entry is not None:
                    self._waiting.append(entry)
                while not self._queue.empty() and not ended:
                    more = self._queue.get_nowait()
                    ended = more is None
                    if more is not None:
                        self._waiting.append(more)
            except queue.Empty:
                pass
            try:
                self._store()
                self.trouble = ""
            except sqlite3.Error as error:
                self.trouble = _why(self._path, error)

    def _store(self) -> None:
        """Write what waits. Raises `sqlite3.Error`, and then the unwritten entries still wait."""
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA synchronous=NORMAL")
            if self.trouble:
                # A disk that refuses shows itself only by a write.
                connection.executescript(_SCHEMA)
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(f"PRAGMA user_version={VERSION}")
                connection.execute("COMMIT")
            while self._waiting:
                batch = [self._waiting[i] for i in range(min(BATCH, len(self._waiting)))]
                connection.execute("BEGIN IMMEDIATE")
                try:
                    for entry in batch:
                        _insert(connection, entry)
                    connection.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                    raise
                for _ in batch:
                    self._waiting.popleft()
                while self._used_bytes(connection) > self._limit_bytes:
                    self._drop_oldest(connection)

    @staticmethod
    def _used_bytes(connection: sqlite3.Connection) -> int:
        ((pages,),) = connection.execute("PRAGMA page_count").fetchall()
        ((free,),) = connection.execute("PRAGMA freelist_count").fetchall()
        ((size,),) = connection.execute("PRAGMA page_size").fetchall()
        return (int(pages) - int(free)) * int(size)

    @staticmethod
    def _drop_oldest(connection: sqlite3.Connection) -> None:
        """Drop the oldest tenth of the larger table, so that no flood of events drops a round."""
        connection.execute("BEGIN IMMEDIATE")
        counts = {
            table: int(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])
            for table in _KEYS
        }
        table = max(counts, key=lambda name: counts[name])
        connection.execute(
            f"DELETE FROM {table} WHERE {_KEYS[table]} <= (SELECT {_KEYS[table]} FROM {table}"
            f" ORDER BY {_KEYS[table]} LIMIT 1 OFFSET ?)",
            (int(counts[table] * PRUNE_SHARE),),
        )
        connection.execute("COMMIT")


def _insert(connection: sqlite3.Connection, entry: Entry) -> None:
    if isinstance(entry, FeedEvent):
        connection.execute("INSERT OR IGNORE INTO events VALUES (?, ?)", (entry.id, _encode(entry)))
        if entry.kind == "round" and entry.round is not None and entry.round.certificate:
            connection.execute(
                "INSERT OR IGNORE INTO rounds VALUES (?, ?, ?, ?)", _row(entry.round)
            )
        return
    connection.execute(
        "UPDATE rounds SET body = ? WHERE certificate = ?", (_encode(entry), entry.certificate)
    )


def _row(one: RoundSummary) -> tuple[str, int, float, bytes]:
    return one.certificate, one.number, one.at, _encode(one)


def _why(path: Path, error: sqlite3.Error) -> str:
    text = str(error)
    if "full" in text:
        return f"the history {path} cannot be written: the disk is full"
    if "locked" in text or "busy" in text:
        return f"the history {path} cannot be used: another program holds it locked"
    return f"the history {path} cannot be used: {text}"
