"""The file of a reference curve, which may change while the observer shows it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from daemon.disk.atomic import write_atomically
from protocol.messages.base import UNREADABLE
from protocol.status.reference import MAX_REFERENCE_BYTES, ReferenceCurve

_log = logging.getLogger(__name__)


def write_reference(path: Path, curve: ReferenceCurve) -> None:
    """Replace the file. A reader sees the old curve or the new one.

    Raises `DiskFull`.
    """
    write_atomically(path, [memoryview(msgspec.json.encode(curve))])


class ReferenceFile:
    """Reads a reference curve again whenever its file has changed."""

    def __init__(self, path: Path) -> None:
        """Reads nothing yet. The file may begin to exist later."""
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._curve: ReferenceCurve | None = None

    def curve(self) -> ReferenceCurve | None:
        """Return the curve; None while the file does not exist.

        A file that is no curve is reported once, and the last curve stays.
        """
        try:
            with self._path.open("rb") as stream:
                found = os.fstat(stream.fileno())
                seen = (found.st_ino, found.st_size, found.st_mtime_ns)
                if seen == self._seen:
                    return self._curve
                self._seen = seen
                body = stream.read(MAX_REFERENCE_BYTES + 1)
            if len(body) > MAX_REFERENCE_BYTES:
                raise ValueError(f"it has more than {MAX_REFERENCE_BYTES} bytes")
            self._curve = msgspec.json.decode(body, type=ReferenceCurve)
        except FileNotFoundError:
            return None
        except (OSError, *UNREADABLE) as error:
            _log.warning("The reference curve %s cannot be shown: %s", self._path, error)
        return self._curve
