"""Frames on a byte stream: four bytes of length, then as many bytes. Every read has a limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from protocol.errors import PeerFault, Unreachable
from protocol.messages.base import UNREADABLE
from protocol.ports.byte_stream import ByteStream

LENGTH_BYTES = 4
# The size of one read, which is what the transports deliver at once.
READ_BYTES = 1 << 16


S = TypeVar("S", bound=msgspec.Struct)


def frame(payload: bytes) -> bytes:
    """`payload` with its length before it."""
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def decode_as(kind: type[S], data: bytes) -> S:
    """A frame's payload as a record. Raises `PeerFault("malformed")`."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a {kind.__name__}: {error}") from None


class FrameReader:
    """Reads frames and raw runs of bytes from one stream."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def next_frame(self, limit: int) -> bytes | None:
        """One frame, or None when the other side finished between frames.

        Raises:
            PeerFault: "oversized", before a frame longer than `limit` is read.
            Unreachable: When the stream broke or ended inside a frame.
        """
        buffer = self._buffer
        if len(buffer) < LENGTH_BYTES and not await self._fill(LENGTH_BYTES, may_end=True):
            return None
        size = int.from_bytes(buffer[:LENGTH_BYTES], "big")
        if size > limit:
            raise PeerFault("oversized", f"a frame of {size} bytes where {limit} are allowed")
        end = LENGTH_BYTES + size
        if len(buffer) < end:
            await self._fill(end)
        payload = bytes(buffer[LENGTH_BYTES:end])
        del buffer[:end]
        return payload

    async def begin_frame(self, limit: int) -> int:
        """The size of the next frame, whose bytes the caller reads with `read_exactly`.

        Raises as `next_frame` does.
        """
        await self._fill(LENGTH_BYTES)
        size = int.from_bytes(self._buffer[:LENGTH_BYTES], "big")
        if size > limit:
            raise PeerFault("oversized", f"a frame of {size} bytes where {limit} are allowed")
        del self._buffer[:LENGTH_BYTES]
        return size

    async def read_exactly(self, size: int) -> bytes:
        """Read `size` bytes. Raises `Unreachable` when the stream ends before."""
        await self._fill(size)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def expect_frame(self, limit: int) -> bytes:
        """One frame. Raises `Unreachable` at the end of the stream."""
        payload = await self.next_frame(limit)
        if payload is None:
            raise Unreachable("the other side finished without an answer")
        return payload

    async def read_into(
        self, target: memoryview, progress: Callable[[int], None] | None = None
    ) -> None:
        """Fill `target`. Raises `Unreachable` when the stream ends before.

        `progress(size_bytes)` is called with the bytes that have arrived so far.
        """
        taken = min(len(self._buffer), len(target))
        target[:taken] = self._buffer[:taken]
        del self._buffer[:taken]
        while True:
            if progress is not None:
                progress(taken)
            if taken == len(target):
                return
            size = await self._stream.receive_into(target[taken:])
            if not size:
                raise Unreachable(f"the stream ended {len(target) - taken} bytes too early")
            taken += size

    async def _fill(self, size: int, *, may_end: bool = False) -> bool:
        while len(self._buffer) < size:
            data = await self._stream.receive_some(READ_BYTES)
            if not data:
                if may_end and not self._buffer:
                    return False
                raise Unreachable("the stream ended inside a frame")
            self._buffer += data
        return True
