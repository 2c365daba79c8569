"""Moves TLS records between a TCP socket and memory, a few hundred kilobytes at a time.

trio's own socket methods take several times as long per piece to find out that they need not
wait, and their checkpoint after a read would let another session use the shared buffers. So this
module calls the system directly.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sys
import termios
from collections.abc import Sequence
from contextlib import suppress

import trio

from daemon.network.tcp_info import SegmentCounts, count_segments
from daemon.network.tls.records import PIECE_RECORDS, RecordBuffer

# A refused peer has this time to read our alert: a round trip of 500 ms, twice.
LINGER_S = 1.0
# What a peer may have sent before it reads our alert: a socket's buffer.
LINGER_BYTES = 1 << 20


# What the system says of a connection that the other side ended (poll(2)). Not every system has the
# first one; there the next read shows the end.
ENDED = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class ScratchBuffers:
    """The memory that ciphertext is read into and written from.

    All sessions of one thread share one: a session never waits while it uses the buffers.
    """

    def __init__(self) -> None:
        # A record that began before, and what arrives now.
        self.received = RecordBuffer(PIECE_RECORDS + 2)
        self.sealed = RecordBuffer(PIECE_RECORDS)


class RecordSocket:
    """The TCP connection under one session. Its methods raise `OSError` or trio's errors."""

    def __init__(self, stream: trio.SocketStream, scratch: ScratchBuffers) -> None:
        self._stream = stream
        self.scratch = scratch

    async def read(self, begun: bytes, wanted: int) -> int:
        """Read up to `wanted` bytes into the scratch, behind the bytes `begun`.

        The bytes stay there until the next turn of the event loop.

        Returns:
            How many bytes were read; 0 at the end of the connection.
        """
        sock, memory, start = self._stream.socket, self.scratch.received.memory, len(begun)
        while True:
            memory[:start] = begun
            try:
                return os.readv(sock.fileno(), [memory[start : start + wanted]])
            except BlockingIOError:
                await trio.lowlevel.wait_readable(sock.fileno())

    async def write(self, records: Sequence[memoryview | bytes]) -> None:
        """Send all of `records`.

        What has to wait is copied out of the scratch first.
        """
        sock = self._stream.socket
        try:
            sent = os.writev(sock.fileno(), records)
        except BlockingIOError:
            sent = 0
        if sent < sum(map(len, records)):
            data = memoryview(b"".join(records))[sent:]
            while data:
                await trio.lowlevel.wait_writable(sock.fileno())
                try:
                    data = data[os.write(sock.fileno(), data) :]
                except BlockingIOError:
                    continue

    def ended(self) -> bool:
        """Whether the other side has closed or reset the connection.

        A first write would still succeed, and its bytes would be lost.
        """
        file = self._stream.socket.fileno()
        if file < 0:
            return True
        poll = select.poll()
        poll.register(file, ENDED)
        return bool(poll.poll(0))

    def write_now(self, record: bytes) -> bool:
        """Send one small record without waiting. False when the socket has no room or is gone."""
        with suppress(OSError):
            return os.write(self._stream.socket.fileno(), record) == len(record)
        return False

    def unsent(self) -> int:
        """Ciphertext bytes that the kernel holds until the other side acknowledges them.

        0 where the system does not say.
        """
        # On Linux this is SIOCOUTQ, see tcp(7).
        request = getattr(termios, "TIOCOUTQ", None)
        if request is None:
            return 0
        answer = bytearray(4)
        try:
            fcntl.ioctl(self._stream.socket.fileno(), request, answer)
        except OSError:
            return 0
        return int.from_bytes(answer, sys.byteorder)

    def segments(self) -> SegmentCounts:
        """What the kernel counted on this connection."""
        return count_segments(self._stream.socket)

    async def drain(self) -> None:
        """End our direction and read on for at most `LINGER_S`, so that an alert can arrive.

        A socket that is closed with unread bytes resets the connection, and the reset destroys
        what is on its way. Never raises anything but cancellation.
        """
        sock, room, read = self._stream.socket, bytearray(1 << 16), 0
        # An error means that the other side is gone, so it needs no alert.
        with suppress(OSError, trio.ClosedResourceError), trio.move_on_after(LINGER_S):
            sock.shutdown(socket.SHUT_WR)
            while read < LINGER_BYTES and (size := await sock.recv_into(room)):
                read += size

    async def close(self) -> None:
        """Close the socket at once. Never raises."""
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.aclose_forcefully(self._stream)
