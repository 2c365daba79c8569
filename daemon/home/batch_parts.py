"""Keeps the number of samples that this machine's device computes at once, by task.

The file `<home>/batch_parts.json` has one line for each task and device setting. A worker that
starts again begins with the size that worked before, instead of running out of memory first.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from threading import Lock

import msgspec

from daemon.disk.atomic import write_atomically
from protocol.digest import digest
from protocol.messages.base import UNREADABLE
from protocol.ports.disk import DiskFull

BATCH_PARTS_FILE = "batch_parts.json"
# The newest tasks; each line has 80 bytes.
MOST_TASKS = 64
MOST_BYTES = 1 << 16
# The workers of a node's devices save at the same time.
_saving = Lock()
_DOMAIN = b"hypergpu/batch-part/1\0"


class BatchPartFile:
    """The size for one task with one device setting. The caller holds the home's lock.

    A file that cannot be read counts as none: the size is then found again.
    """

    def __init__(self, home: Path, named: object) -> None:
        """`named` is all that the size depends on, as msgpack can encode it."""
        self._path = home / BATCH_PARTS_FILE
        self._key = digest(_DOMAIN, msgspec.msgpack.encode(named)).hex()

    def load(self) -> int:
        """Return the size that was found before; 0 means none."""
        return self._read().get(self._key, 0)

    def save(self, samples: int) -> None:
        """Keep the size. A full disk is no error: the size is found again after a restart."""
        with _saving:
            known = self._read()
            if known.pop(self._key, 0) == samples:
                return
            known[self._key] = samples
            newest = dict(list(known.items())[-MOST_TASKS:])
            with suppress(DiskFull):
                write_atomically(self._path, [memoryview(msgspec.json.encode(newest))])

    def _read(self) -> dict[str, int]:
        try:
            with self._path.open("rb") as stream:
                found = msgspec.json.decode(stream.read(MOST_BYTES), type=dict[str, int])
        except (OSError, *UNREADABLE):
            return {}
        return {key: size for key, size in found.items() if size > 0}
