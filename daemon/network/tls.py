"""One TLS 1.3 session over a trio socket, with half-close: `ssl.SSLObject` between two memory buffers.

trio's own `SSLStream` cannot end one direction alone and hands out a record (16 KB) at a time. This one encrypts and reads the socket in pieces of
512 KB and decrypts into the buffer that its reader gives. `hypergpud bench tls` measures it: 1.0 GB/s between two processes on the test
machine, as much as a blocking `ssl.SSLSocket` in a thread; pieces of 256 KB with copies of each record, as it was before, made 0.6.
"""

from __future__ import annotations

import fcntl
import os
import socket
import ssl
import sys
import termios

import trio

from daemon.network.tcp_info import Segments, segments
from protocol.errors import Unreachable

PIECE_BYTES = (
    1 << 19
)  # encrypted or read at a time, 0.4 ms of work; smaller ones wake the other side too often: 64 KB cost a third more CPU
RECORD_BYTES = 1 << 14  # the largest piece of plaintext in one TLS record (RFC 8446, 5.1)


def tune(stream: trio.SocketStream) -> None:
    """Frames leave when they are written. Buffer sizes are left to the kernel: a size that is set stays, and ends its tuning."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class TlsSession:
    """Encrypts and decrypts. Raises `Unreachable` when the connection is broken, `ssl.SSLError` from `handshake` alone.

    One task may send while another one receives. A `send_all` that was cancelled in its middle breaks the session: bytes of a record are missing,
    and nothing may follow them. A receive that was cancelled has lost nothing.
    """

    def __init__(
        self, transport: trio.SocketStream, context: ssl.SSLContext, *, server_side: bool, scratch: memoryview | None = None
    ) -> None:
        """`scratch` is where ciphertext is read to; the sessions of one thread may share it, since none waits while it uses it."""
        self._transport = transport
        self._scratch = scratch if scratch is not None else memoryview(bytearray(PIECE_BYTES))
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
        received = bytearray(min(max_bytes, RECORD_BYTES))
        size = await self.receive_into(memoryview(received))
        return bytes(received[:size])

    async def receive_into(self, target: memoryview) -> int:
        """As `ByteStream.receive_into`: as much as can be had without waiting for more."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check()
        while True:
            unsent = self._outgoing.pending  # by a sender that waits for its turn: its business, or two full sockets would wait for ever
            size = self._decrypt(target)
            if self._outgoing.pending > unsent:
                await self._flush()  # the answer to a key update
            if size is not None:
                await trio.lowlevel.cancel_shielded_checkpoint()  # what was decrypted is the caller's: no cancellation may lose it
                return size
            await self._fill()

    def unsent(self) -> int:
        """Bytes, of ciphertext, that the kernel holds until the other side has them. 0 where the system does not say."""
        request = getattr(termios, "TIOCOUTQ", None)  # Linux: SIOCOUTQ, tcp(7)
        if request is None or self._broken:
            return 0
        answer = bytearray(4)
        try:
            fcntl.ioctl(self._transport.socket.fileno(), request, answer)
        except OSError:
            return 0
        return int.from_bytes(answer, sys.byteorder)

    def segments(self) -> Segments:
        """What the kernel counted on this connection."""
        return Segments() if self._broken else segments(self._transport.socket)

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

    def _decrypt(self, target: memoryview) -> int | None:
        """Into `target` what can be had without waiting; None for nothing yet, 0 for the end."""
        size, wanted, read = (
            0,
            len(target),
            self._tls.read,
        )  # one turn for each record: what is looked up here is looked up 4,000 times a round
        try:
            while size < wanted:
                got = read(wanted - size, target[size:])
                if not got:
                    break
                size += int(got)
        except ssl.SSLWantReadError:
            if not size:
                return None
        except ssl.SSLZeroReturnError:
            pass  # how it says the end once we have said ours too
        except ssl.SSLError as error:
            if not size:
                raise self._break(f"TLS: {error.reason or error}") from error
        return size

    async def _fill(self) -> None:
        piece = self._scratch
        try:
            while True:
                try:
                    # Not through trio's socket: its checkpoint after a read would let another session use the scratch before us.
                    received = os.readv(self._transport.socket.fileno(), [piece])
                    break
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(self._transport.socket)
        except (OSError, trio.ClosedResourceError) as error:
            raise self._break(f"connection broken: {error}") from error
        if received:
            self._incoming.write(piece[:received])
        else:
            self._incoming.write_eof()  # without a close_notify before it, the next read raises

    async def _flush(self) -> None:
        """What was encrypted so far to the kernel, by one task at a time."""
        try:
            self._flushing.acquire_nowait()  # mostly free: waiting for a lock that is free is a turn of the event loop
        except trio.WouldBlock:
            await self._flushing.acquire()
        try:
            data = self._outgoing.read()
            if data:
                await self._write(memoryview(data))
        finally:
            self._flushing.release()

    async def _write(self, data: memoryview) -> None:
        """As trio's `SocketStream.send_all`, which takes several times as long for each piece to find out that it need not wait."""
        sock = self._transport.socket
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            while data:
                try:
                    data = data[os.write(sock.fileno(), data) :]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(sock)
        except trio.Cancelled:
            self._broken = self._broken or "a send was cancelled in its middle"
            raise
        except (OSError, trio.ClosedResourceError) as error:
            raise self._break(f"connection broken: {error}") from error
        await trio.lowlevel.cancel_shielded_checkpoint()  # the others' turn

    def _check(self) -> None:
        if self._broken:
            raise Unreachable(self._broken)

    def _break(self, why: str) -> Unreachable:
        self._broken = self._broken or why
        return Unreachable(self._broken)
