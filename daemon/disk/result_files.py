"""Keeps the bytes from which the states of recent certificates follow, one file each.

A file is the encoded mean of one round (`protocol/averaging/encoded_mean.py`), or the state of a
merge. It has no header: the certificate names what the bytes must lead to, and each reader
checks that. Its name holds the certificate's number and the digest of the certificate's state.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from daemon.disk.atomic import FaultHook, write_atomically
from protocol.digest import Buffer, Digest

SUFFIX = ".results"
_NAME = re.compile(r"([0-9]+)-([0-9a-f]{64})\.results")


class ResultFiles:
    """The files of one run. Blocking; one thread at a time writes."""

    def __init__(self, folder: Path, fault: FaultHook) -> None:
        self._folder, self._fault = folder, fault

    def save(self, number: int, state: Digest, parts: Sequence[Buffer]) -> int:
        """Write a file, durable on return; return its size. Raises `DiskFull`."""
        path = self._folder / f"{number}-{state.hex()}{SUFFIX}"
        return write_atomically(path, [memoryview(part) for part in parts], self._fault)

    def read(self, state: Digest, offset: int, size: int | None) -> bytes | None:
        """Return bytes of a file; None where it is absent or cannot be read."""
        try:
            # A name starts with a digit: a draft's name ends as its file's name does.
            for path in self._folder.glob(f"[0-9]*-{state.hex()}{SUFFIX}"):
                with path.open("rb") as file:
                    file.seek(offset)
                    return file.read() if size is None else file.read(size)
        except OSError:
            return None
        return None

    def drop(self, number: int) -> None:
        """Remove the files of certificates up to `number`. A file that stays is tried again."""
        with suppress(OSError):
            for name in os.listdir(self._folder):
                found = _NAME.fullmatch(name)
                if found and int(found[1]) <= number:
                    self._fault("remove")
                    with suppress(OSError):
                        (self._folder / name).unlink(missing_ok=True)
