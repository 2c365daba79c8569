"""How a stream is given back without cutting off what was sent: say the end, read a little further,
then close.

Closing a socket (or resetting a yamux stream) while bytes from the other side are unread destroys
what is still on its way to it. So a stream that is whole is ended in a task of its own, which
outlives the caller's interest by seconds at most.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import trio

from protocol.errors import Unreachable

# A round trip of 500 ms, and a peer that is busy.
LINGER_S = 5.0
# Who sends more than this after we lost interest is cut off: one yamux window.
LINGER_BYTES = 1 << 18


_Stream = TypeVar("_Stream")


class ClosableStream(Protocol):
    """What both kinds of stream offer for this."""

    async def send_eof(self) -> None: ...
    async def receive_some(self, max_bytes: int) -> bytes: ...
    async def abort(self) -> None: ...

    async def linger(self) -> None:
        """Of a broken stream: wait until the other side can have read why it broke."""
        ...


async def close_gracefully(stream: ClosableStream) -> None:
    """Never raises but for cancellation; the stream is closed in every case."""
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
    """Runs endings in the network's nursery; before and after its life streams are cut off instead."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def start(self, ending: Callable[[_Stream], Awaitable[None]], stream: _Stream) -> bool:
        """False when there is nobody to run it."""
        if self._nursery is None:
            return False
        self._nursery.start_soon(ending, stream)
        return True
