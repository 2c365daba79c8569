"""Stores the devnet's blocks and state in a SQLite file.

Each block is one database transaction, so a kill at any moment leaves whole blocks.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from eth.db.backends.base import BaseDB


class SqliteStore(BaseDB):
    """py-evm's key-value store in SQLite; without a path, in memory.

    The store serves one thread at a time, so the caller holds the devnet's lock.
    """

    def __init__(self, path: Path | None) -> None:
        """Open the store. Raises `sqlite3.DatabaseError` for a file that is not a database."""
        self._base = sqlite3.connect(
            path or ":memory:", check_same_thread=False, isolation_level=None
        )
        self._base.execute("PRAGMA journal_mode=WAL")
        # A block that the devnet reported survives a power failure.
        self._base.execute("PRAGMA synchronous=FULL")
        self._base.execute(
            "CREATE TABLE IF NOT EXISTS kept"
            " (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
        )
        self._base.execute("BEGIN")

    def commit(self) -> None:
        """Make everything written so far durable."""
        self._base.execute("COMMIT")
        self._base.execute("BEGIN")

    def roll_back(self) -> None:
        """Undo everything since the last commit."""
        self._base.execute("ROLLBACK")
        self._base.execute("BEGIN")

    def close(self) -> None:
        self._base.execute("ROLLBACK")
        self._base.close()

    def __getitem__(self, key: bytes) -> bytes:
        row = self._base.execute("SELECT value FROM kept WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        return bytes(row[0])

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._base.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (key, value))

    def _exists(self, key: bytes) -> bool:
        return self._base.execute("SELECT 1 FROM kept WHERE key = ?", (key,)).fetchone() is not None

    def __delitem__(self, key: bytes) -> None:
        if self._base.execute("DELETE FROM kept WHERE key = ?", (key,)).rowcount == 0:
            raise KeyError(key)
