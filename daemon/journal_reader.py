"""Reads the journal of a home from disk, whether its node runs or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from daemon.journal import KEPT_OLD
from protocol.journal import AnyEvent, decode_event


def journal_files(path: Path) -> tuple[Path, ...]:
    """The journal at `path` and its older files, oldest first; some may not exist."""
    older = (path.with_name(f"{path.name}.{age}") for age in range(KEPT_OLD, 0, -1))
    return (*older, path)


class JournalReader:
    """Iterates over the events on disk, oldest first.

    It skips lines that it cannot decode: a crash may tear the last line, and a later version may
    write events that this one does not know. `unreadable` counts those lines.
    """

    def __init__(self, path: Path) -> None:
        """`path` is the newest file. Opens nothing."""
        self._path = path
        self.unreadable = 0

    def __iter__(self) -> Iterator[AnyEvent]:
        """Raises `OSError` for a file that exists and cannot be read."""
        for file in journal_files(self._path):
            try:
                stream = file.open("rb")
            except FileNotFoundError:
                continue
            with stream:
                for line in stream:
                    if line == b"\n":
                        continue
                    try:
                        yield decode_event(line)
                    except (msgspec.DecodeError, ValueError):
                        self.unreadable += 1
