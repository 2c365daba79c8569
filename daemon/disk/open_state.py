"""Keeps a checkpoint's state open for reading. An open file stays readable after its removal."""

from __future__ import annotations

import os
from pathlib import Path

from daemon.disk.tensors import place_of
from protocol.ports.offload import Offload


class OpenState:
    """Satisfies `ports.KeptState` over a file descriptor, which it owns."""

    def __init__(self, handle: int, start: int, stop: int, offload: Offload) -> None:
        self._handle, self._start, self._stop, self._offload = handle, start, stop, offload
        self._readers = 0
        self._closing = False

    async def read(self, offset: int, size: int) -> bytes | None:
        if offset < 0 or size < 0:
            raise ValueError(f"no {size} bytes at {offset}")
        if self._closing:
            return None
        self._readers += 1
        try:
            return await self._offload(lambda: self._read(offset, size))
        finally:
            self._readers -= 1
            self._close_unused()

    def _read(self, offset: int, size: int) -> bytes | None:
        try:
            return os.pread(
                self._handle,
                max(0, min(size, self._stop - self._start - offset)),
                self._start + offset,
            )
        except OSError:
            return None

    async def aclose(self) -> None:
        """Close the file when its last read has ended.

        A read in another thread must not use the number of a closed descriptor, which may name
        another file by then.
        """
        self._closing = True
        self._close_unused()

    def _close_unused(self) -> None:
        if self._closing and not self._readers and self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def open_state(path: Path, offload: Offload) -> OpenState:
    """Open a checkpoint's state. Raises `OSError`, or `DamagedFile` for a file without a state."""

    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        start, stop = place_of(handle, ("anchor", "momentum"))
    except BaseException:
        os.close(handle)
        raise
    return OpenState(handle, start, stop, offload)
