"""Writes the frames of one connection in one task, so that a cancelled caller breaks no frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import trio
from libp2p.io.exceptions import ConnectionClosedError

from daemon.network.error_boundary import contain_errors

# Small frames queued behind a stuck socket. Then their writers wait.
MAX_QUEUED_FRAMES = 4096
# Small frames leave together, up to one Noise message.
COALESCED_BYTES = 1 << 16


class _Frame:
    """A frame on its way out. `done` is set when the frame is written or never will be."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.done = trio.Event()
        self.failed = False


class FrameWriter:
    """A queue of frames and the task that writes them."""

    def __init__(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """`write` sends bytes over the secured connection."""
        self._write = write
        self._queue: deque[_Frame] = deque()
        self._wake = trio.Event()
        self._ended = False

    def put(self, data: bytes) -> None:
        """Queue a frame without waiting for it."""
        self._queue.append(_Frame(data))
        self._wake.set()

    async def send(self, data: bytes, *, wait: bool) -> None:
        """Queue a frame.

        With `wait`, return when the frame is written, which gives back-pressure. Else wait only
        behind very many others.

        Raises:
            ConnectionClosedError: When the frame was not written.
        """
        if self._ended:
            raise ConnectionClosedError("the connection is closed", transport="tcp")
        frame = _Frame(data)
        self._queue.append(frame)
        self._wake.set()
        if wait or len(self._queue) > MAX_QUEUED_FRAMES:
            await frame.done.wait()
            if frame.failed:
                raise ConnectionClosedError("the connection broke", transport="tcp")
        else:
            await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        """Write until cancelled, or until a write fails."""
        frames: list[_Frame] = []
        try:
            while True:
                if not self._queue:
                    self._wake = trio.Event()
                    await self._wake.wait()
                frames = [self._queue.popleft()]
                size = len(frames[0].data)
                while self._queue and size + len(self._queue[0].data) <= COALESCED_BYTES:
                    frames.append(self._queue.popleft())
                    size += len(frames[-1].data)
                with contain_errors("writing to a connection") as written:
                    await self._write(b"".join(frame.data for frame in frames))
                if written.failed is not None:
                    return
                for frame in frames:
                    frame.done.set()
        finally:
            self._ended = True
            for frame in (*frames, *self._queue):
                frame.failed = not frame.done.is_set()
                frame.done.set()
            self._queue.clear()
