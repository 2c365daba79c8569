"""A `ByteStream` over one stream of a libp2p connection."""

from __future__ import annotations

from typing import Any

import trio
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.network.stream.net_stream import NetStream

from daemon.network.byte_counter import ByteCounter
from daemon.network.error_boundary import translate_errors
from daemon.network.graceful_close import BackgroundCloser, close_gracefully
from protocol.errors import Unreachable
from protocol.identity import PeerId

# One yamux frame. Pieces of 64 KB are the fastest: 350 MB/s, where 16 KB make 100 and 1 MB 216.
WRITE_BYTES = (1 << 16) - 12
# A sender that waits for the window checks at this interval whether the stream still exists.
RESET_NOTICED_S = 0.25


class _WindowLock:
    """Replaces the library's lock on a stream's window.

    The library opens the window while it holds this lock, so a sender waits for its release.
    """

    def __init__(self) -> None:
        self._lock = trio.Lock()
        self.released = trio.Event()

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()
        self.released.set()
        self.released = trio.Event()


class ControlStream:
    """A stream on which one task may send while another receives.

    A send that was cancelled in its middle breaks the stream.
    """

    def __init__(
        self, stream: NetStream, peer: PeerId, traffic: ByteCounter, closer: BackgroundCloser
    ) -> None:
        self._stream = stream
        muxed: Any = stream.muxed_stream
        self._muxed = muxed
        self._window_lock = muxed.window_lock = _WindowLock()
        self._peer = peer
        self._traffic = traffic
        self._closer = closer
        self._broken = ""
        self._sent_eof = False
        self._seen_eof = False
        self._closed = False

    @property
    def peer(self) -> PeerId:
        return self._peer

    async def send_all(self, data: bytes | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check()
        if self._sent_eof:
            raise Unreachable("the stream was ended by us")
        view = memoryview(data).cast("B")
        whole = False
        try:
            start = 0
            while start < len(view):
                piece = bytes(view[start : start + min(await self._window(), WRITE_BYTES)])
                with translate_errors("sending"):
                    await self._stream.write(piece)
                start += len(piece)
                self._traffic.sent += len(piece)
            whole = True
        except Unreachable as error:
            self._broken = self._broken or str(error)
            raise
        finally:
            if not whole:
                self._broken = self._broken or "a send was cut short"

    async def _window(self) -> int:
        """Wait until the other side accepts bytes. Returns how many.

        libp2p's own write gives up after 5 s.
        """
        while self._muxed.send_window <= 0:
            if self._muxed.closed or self._muxed.reset_received:
                raise Unreachable("the stream was reset")
            with trio.move_on_after(RESET_NOTICED_S):
                await self._window_lock.released.wait()
        return int(self._muxed.send_window)

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check()
        if self._seen_eof:
            return b""
        try:
            with translate_errors("receiving"):
                try:
                    data: bytes = await self._stream.read(max_bytes)
                except StreamEOF:
                    data = b""
        except Unreachable as error:
            self._broken = self._broken or str(error)
            raise
        if not data:
            # The library also reports an end after a reset and after a lost connection.
            if self._muxed.reset_received or self._muxed.conn.event_shutting_down.is_set():
                self._broken = self._broken or "the stream was reset"
                raise Unreachable(self._broken)
            self._seen_eof = True
        self._traffic.received += len(data)
        return data

    async def receive_into(self, target: memoryview) -> int:
        data = await self.receive_some(len(target))
        target[: len(data)] = data
        return len(data)

    def unsent(self) -> int:
        # libp2p keeps no count.
        return 0

    async def send_eof(self) -> None:
        self._check()
        if not self._sent_eof:
            self._sent_eof = True
            with translate_errors("ending a stream"):
                await self._stream.close_write()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if (
            self._broken
            or (self._sent_eof and self._seen_eof)
            or not self._closer.start(close_gracefully, self)
        ):
            await self.abort()

    async def linger(self) -> None:
        """Return at once: libp2p cannot tell the other side why a stream is over."""

    async def abort(self) -> None:
        """Cut the stream off now. Never raises."""
        self._closed = True
        self._broken = self._broken or "the stream was closed"
        # These are frames of 12 bytes, which need not wait.
        with trio.CancelScope(shield=True), trio.move_on_after(1.0):
            try:
                with translate_errors("closing a stream"):
                    if self._sent_eof and self._seen_eof:
                        await self._stream.close()
                    else:
                        await self._stream.reset()
            except Unreachable:
                pass

    def _check(self) -> None:
        if self._broken:
            raise Unreachable(self._broken)
