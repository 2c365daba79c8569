"""`FakeStream`: one end of a byte stream on a fake connection, a `ports.ByteStream`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import trio

from protocol.errors import Unreachable
from protocol.identity import PeerId
from simulator.fakes.connection import HEADER_BYTES, FakeConnection

# The window of a yamux stream: what may be under way before the reader has read it.
CONTROL_WINDOW_BYTES = 256 << 10
# Linux limits a TCP connection's receive buffer to 6 MB by default.
BULK_WINDOW_BYTES = 4 << 20
# What the real network writes at once.
CONTROL_PIECE_BYTES = 64 << 10
# Four TLS writes: fewer pieces make fewer events.
BULK_PIECE_BYTES = 256 << 10


class FakeStream:
    """One end of a stream; `other` is the opposite end once both exist."""

    def __init__(self, connection: FakeConnection, side: int, protocol: str) -> None:
        self.connection = connection
        self.side = side
        self.protocol = protocol
        self.peer: PeerId = connection.ends[1 - side].peer
        self.other: FakeStream | None = None
        self.accepted = False
        self.closed = False
        is_link = connection.is_link
        self._counter = connection.ends[side].counter
        self._window_bytes = CONTROL_WINDOW_BYTES if is_link else BULK_WINDOW_BYTES
        self._piece_bytes = CONTROL_PIECE_BYTES if is_link else BULK_PIECE_BYTES
        self._credit_bytes = self._window_bytes
        # The last piece is still on its way through a pipe.
        self._leaving = False
        # Bytes that were read here and not yet credited to the sender.
        self._uncredited_bytes = 0
        self._buffer: deque[bytes] = deque()
        # Bytes of the first piece in the buffer that were read already.
        self._read_bytes = 0
        # The other side has ended the stream.
        self._ended = False
        # This side sends no more.
        self._finished = False
        # The other side has closed: it reads nothing that is sent now.
        self._deaf = False
        self._broken: str | None = None
        self._readable = trio.lowlevel.ParkingLot()
        self._writable = trio.lowlevel.ParkingLot()
        connection.streams[side][self] = None

    # ---------------------------------------------------------------- the port

    async def send_all(self, data: bytes | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_sending()
        view = memoryview(data).cast("B")
        start, size = 0, len(view)
        while start < size:
            # One piece at a time takes its place in the pipes. So streams that share a pipe
            # alternate, and a vote passes between slices.
            while self._credit_bytes <= 0 or self._leaving:
                await self._writable.park()
                self._check_sending()
            stop = min(size, start + self._piece_bytes, start + self._credit_bytes)
            self._credit_bytes -= stop - start
            self._counter.count_sent(self.connection.is_link, stop - start)
            assert self.other is not None
            self._send(stop - start, self.other.arrive, bytes(view[start:stop]))
            start = stop
            self._leaving = self.connection.call_when_left(self.side, self._left)

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._buffer:
            if self.closed:
                raise Unreachable("this side has closed the stream")
            if self._ended:
                return b""
            if self._broken is not None:
                raise Unreachable(self._broken)
            await self._readable.park()
        whole = self._buffer[0]
        piece = whole[self._read_bytes : self._read_bytes + max_bytes]
        self._read_bytes += len(piece)
        if self._read_bytes == len(whole):
            self._buffer.popleft()
            self._read_bytes = 0
        self._uncredited_bytes += len(piece)
        if self._uncredited_bytes >= self._window_bytes // 2 and not self._ended:
            assert self.other is not None
            self._send(HEADER_BYTES, self.other.gain_credit, self._uncredited_bytes)
            self._uncredited_bytes = 0
        return piece

    async def receive_into(self, target: memoryview) -> int:
        piece = await self.receive_some(len(target))
        target[: len(piece)] = piece
        return len(piece)

    def unsent(self) -> int:
        # `send_all` returns when the last piece has left through the pipe, or nearly so.
        return 0

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._broken is not None and not self._finished:
            raise Unreachable(self._broken)
        self._finish(closing=False)

    async def aclose(self) -> None:
        self.close()

    # ---------------------------------------------------------------- for the connection and node

    def close(self) -> None:
        """Close without waiting: the other side reads what was sent and then the end.

        From then on the other side cannot send either.
        """
        if not self.closed:
            self._finish(closing=True)
            self.closed = True
            self._buffer.clear()
            self.connection.streams[self.side].pop(self, None)
            self._wake()
            if not self.connection.is_link:
                self.connection.retire(self.side)

    def reset(self, reason: str) -> None:
        """Close so that the other side gets `Unreachable` instead of an end."""
        if not self.closed and self._broken is None and self.other is not None:
            self._send(HEADER_BYTES, self.other.break_off, reason)
            self._finished = True
        self.close()

    def break_off(self, reason: str) -> None:
        """End the stream from outside. What arrived before can still be read."""
        if self._broken is None and not self.closed:
            self._broken = reason
            self.connection.streams[self.side].pop(self, None)
            self._wake()

    def arrive(self, data: bytes) -> None:
        if not self.closed and self._broken is None:
            self._counter.count_received(self.connection.is_link, len(data))
            self._buffer.append(data)
            if self._readable:
                self._readable.unpark_all()

    def gain_credit(self, size_bytes: int) -> None:
        self._credit_bytes += size_bytes
        self._writable.unpark_all()

    def end(self, closing: bool) -> None:
        """The other side sends no more; with `closing` it reads no more either."""
        self._ended = True
        self._deaf = self._deaf or closing
        self._wake()

    def mark_accepted(self, _: None) -> None:
        """The other side serves this stream's protocol."""
        self.accepted = True
        self._wake()

    async def wait_accepted(self) -> None:
        """Wait until the other side has accepted the stream.

        Raises:
            Unreachable: When the other side refused the stream or the connection broke.
        """
        while not self.accepted:
            if self._broken is not None:
                raise Unreachable(self._broken)
            await self._readable.park()

    # ---------------------------------------------------------------- internals

    def _send(self, size_bytes: int, act: Callable[[Any], None], argument: Any) -> None:
        self.connection.send(self.side, size_bytes, act, argument)

    def _left(self, _: None) -> None:
        self._leaving = False
        if self._writable:
            self._writable.unpark_all()

    def _finish(self, *, closing: bool) -> None:
        if self._broken is None and self.other is not None and (not self._finished or closing):
            self._send(HEADER_BYTES, self.other.end, closing)
        self._finished = True

    def _check_sending(self) -> None:
        if self._broken is not None:
            raise Unreachable(self._broken)
        if self._finished:
            raise Unreachable("this side has ended the stream")
        if self._deaf:
            raise Unreachable("the other side has closed the stream")

    def _wake(self) -> None:
        if self._readable:
            self._readable.unpark_all()
        if self._writable:
            self._writable.unpark_all()
