"""One TLS 1.3 session over a trio socket, with half-close: `ssl.SSLObject` between two memory buffers.

trio's own `SSLStream` cannot end one direction alone and hands out a record (16 KB) at a time; this one reads the socket and encrypts
in pieces of 256 KB, which is what a slice of gradients wants: 0.7 to 2.2 GB/s between two processes on two shared cores.
"""

from __future__ import annotations

import socket
import ssl

import trio

from protocol.errors import Unreachable

PIECE_BYTES = 1 << 18  # encrypted or received at a time; each waits for the one before it, so this is also what a stuck stream holds
RECORD_BYTES = 1 << 14  # the largest piece of plaintext in one TLS record (RFC 8446, 5.1)


def tune(stream: trio.SocketStream) -> None:
    """Frames leave when they are written."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class TlsSession:
    """Encrypts and decrypts. Raises `Unreachable` when the connection is broken, `ssl.SSLError` from `handshake` alone.

    One task may send while another one receives. A `send_all` or `receive_some` that was cancelled in its middle breaks the session:
    bytes of a record are missing, and nothing may follow them.
    """

    def __init__(self, transport: trio.SocketStream, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._flushing = trio.Lock()
        self._broken = ""
        self._ended = False

    @property
    def usable(self) -> bool:
        """Whether what follows could still arrive whole."""
        return not self._broken

    async def handshake(self) -> bytes:
        """The other side's certificate in DER. Raises `ssl.SSLError` for what is no TLS or not the trusted certificate."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                await self._flush()  # the alert that tells the other side why
                raise
        await self._flush()
        return self._tls.getpeercert(binary_form=True) or b""

    async def send_all(self, data: bytes | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._ended:
            raise Unreachable("the stream was ended by us")
        view = memoryview(data).cast("B")
        for start in range(0, len(view), PIECE_BYTES):
            self._check()
            piece = view[start : start + PIECE_BYTES]
            try:
                while piece:
                    piece = piece[self._tls.write(piece) :]
            except ssl.SSLError as error:
                raise self._break(f"TLS: {error.reason or error}") from error
            await self._flush()

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check()
        while True:
            unsent = self._outgoing.pending  # by a sender that waits for its turn: its business, or two full sockets would wait for ever
            received = self._decrypt(max_bytes)
            if self._outgoing.pending > unsent:
                await self._flush()  # the answer to a key update
            if received is not None:
                await trio.lowlevel.checkpoint()
                return received
            await self._fill()

    async def send_eof(self) -> None:
        """close_notify: TLS 1.3 allows the other direction to go on."""
        if self._ended:
            return
        self._check()
        self._ended = True
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            pass  # said ours, have not seen theirs
        except ssl.SSLError as error:
            raise self._break(f"TLS: {error.reason or error}") from error
        await self._flush()

    async def aclose(self) -> None:
        """Never raises, waits for nobody."""
        self._broken = self._broken or "the stream was closed"
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.aclose_forcefully(self._transport)

    # ------------------------------------------------------------------------------------------------

    def _decrypt(self, max_bytes: int) -> bytes | None:
        """What can be had without waiting, None for nothing yet, b"" for the end."""
        pieces: list[bytes] = []
        size = 0
        try:
            while size < max_bytes:
                piece = self._tls.read(min(max_bytes - size, RECORD_BYTES))  # it allocates what it is asked for
                if not piece:
                    break
                pieces.append(piece)
                size += len(piece)
        except ssl.SSLWantReadError:
            if not pieces:
                return None
        except ssl.SSLZeroReturnError:
            pass  # how it says the end once we have said ours too
        except ssl.SSLError as error:
            if not pieces:
                raise self._break(f"TLS: {error.reason or error}") from error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _fill(self) -> None:
        try:
            received = await self._transport.receive_some(PIECE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._break(f"connection broken: {error}") from error
        if received:
            self._incoming.write(received)
        else:
            self._incoming.write_eof()  # without a close_notify before it, the next read raises

    async def _flush(self) -> None:
        async with self._flushing:
            data = self._outgoing.read()
            if not data:
                return
            try:
                await self._transport.send_all(data)
            except trio.Cancelled:
                self._broken = "a send was cancelled in its middle"
                raise
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise self._break(f"connection broken: {error}") from error

    def _check(self) -> None:
        if self._broken:
            raise Unreachable(self._broken)

    def _break(self, why: str) -> Unreachable:
        self._broken = self._broken or why
        return Unreachable(self._broken)
