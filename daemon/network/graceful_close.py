"""Closing a stream without destroying what was sent on it.

Closing a socket (or resetting a yamux stream) while bytes from the other side are unread destroys
what is still on its way to the other side. So a healthy stream is closed in a task of its own:
send the end, read a little further, then close. The task outlives its caller by a few seconds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import trio

from protocol.errors import Unreachable
from protocol.ports.byte_stream import ByteStream

# A round trip of 500 ms, and a busy peer.
LINGER_S = 5.0
# A peer that sends more after the end is cut off. The limit is one yamux window.
LINGER_BYTES = 1 << 18


_Stream = TypeVar("_Stream")


class ClosableStream(Protocol):
    """The operations that a graceful close needs of a stream."""

    async def send_eof(self) -> None: ...
    async def receive_some(self, max_bytes: int) -> bytes: ...
    async def abort(self) -> None: ...

    async def linger(self) -> None:
        """Wait, on a broken stream, until the other side can have read why the stream broke."""
        ...


class ServedStream(ByteStream, ClosableStream, Protocol):
    """A stream that a handler reads and that can be closed gracefully afterwards."""


async def close_gracefully(stream: ClosableStream) -> None:
    """Close a stream after the other side could read everything that was sent.

    Never raises anything but cancellation. The stream is closed in every case.
    """
    try:
        with trio.move_on_after(LINGER_S):
            await stream.send_eof()
            drained = 0
            while drained < LINGER_BYTES and (piece := await stream.receive_some(1 << 16)):
                drained += len(piece)
    except Unreachable:
        await stream.linger()
    finally:
        await stream.abort()


class BackgroundCloser:
    """Closes streams in the network's nursery.

    Before and after the life of that nursery, the caller has to cut the stream off instead.
    """

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Accept streams to close, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def start(self, close: Callable[[_Stream], Awaitable[None]], stream: _Stream) -> bool:
        """Close `stream` in the background. False when the nursery does not run."""
        if self._nursery is None:
            return False
        self._nursery.start_soon(close, stream)
        return True
