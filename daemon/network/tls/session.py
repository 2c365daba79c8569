"""One TLS 1.3 session over a trio socket, with half-close: OpenSSL's handshake
(`tls_handshake.py`), then records (`tls_records.py`).

trio's own `SSLStream` cannot end one direction alone and hands out a record (16 KB) at a time. This
one encrypts and reads the socket in pieces of 512 KB and decrypts into the buffer that its reader
gives. `hypergpud bench tls` measures it: 1.7 to 2.1 GB/s between two processes on the test machine;
a blocking `ssl.SSLSocket` in a thread, and this one while it had its records from `ssl.SSLObject`,
make 1.1.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress

import trio

from daemon.network.tcp_info import SegmentCounts, segments
from daemon.network.tls.control_messages import RecordError
from daemon.network.tls.handshake import HandshakeFailed, TlsContext
from daemon.network.tls.records import (
    OVERHEAD_BYTES,
    RECORD_BYTES,
    WIRE_BYTES,
    RecordBuffer,
    RecordOpener,
    RecordSealer,
)
from protocol.errors import Unreachable

# Encrypted or read at a time, 0.2 ms of work; fewer wake the other side too often: 4 cost a third
# more CPU.
PIECE_RECORDS = 32
PIECE_BYTES = PIECE_RECORDS * RECORD_BYTES
# For an alert to arrive: a round trip of 500 ms, twice.
LINGER_S = 1.0
# What a peer may have sent before it reads our alert: a socket's buffer.
LINGER_BYTES = 1 << 20


class ScratchBuffers:
    """Where ciphertext is read to and written from.

    The sessions of one thread may share one, since none waits while it uses it.
    """

    def __init__(self) -> None:
        # A record that began before, and what came now.
        self.came = RecordBuffer(PIECE_RECORDS + 2)
        self.sealed = RecordBuffer(PIECE_RECORDS)


def tune(stream: trio.SocketStream) -> None:
    """Frames leave when they are written.

    Buffer sizes are left to the kernel: a size that is set stays, and ends its tuning.
    """
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class TlsSession:
    """Encrypts and decrypts.

    Raises `Unreachable` when the connection is broken, `HandshakeFailed` from `handshake` alone.

    One task may send while another one receives. A `send_all` that was cancelled in its middle
    breaks the session: bytes of a record are missing, and nothing may follow them. A receive that
    was cancelled has lost nothing.
    """

    def __init__(
        self,
        transport: trio.SocketStream,
        context: TlsContext,
        trusts: Callable[[bytes], bool],
        scratch: ScratchBuffers | None = None,
    ) -> None:
        """`trusts` says of the other side's certificate, in DER, whether it is acceptable."""
        self._transport = transport
        self._scratch = scratch or ScratchBuffers()
        self._context, self._trusts = context, trusts
        self._sealing: RecordSealer | None = None
        self._opening: RecordOpener | None = None
        self._rest = b""  # what came and is not decrypted
        self._sending = trio.Lock()
        self._broken = ""
        self._ended = False
        # To be sent as soon as no record is under way.
        self._alert: int | None = None
        # Whether we told the other side that we give up.
        self.refused = False

    @property
    def usable(self) -> bool:
        """Whether what follows could still arrive whole."""
        return not self._broken

    async def handshake(self) -> bytes:
        """The other side's certificate in DER.

        Raises:
            HandshakeFailed: For what is no TLS or not a trusted certificate. The other side was
                told; `linger` sees that it can read that.
        """
        handshake = self._context.begin(self._trusts)
        try:
            while not handshake.step():
                await self._write([handshake.unsent()])
                handshake.feed(self._scratch.came.memory[: await self._read(WIRE_BYTES)])
            last = handshake.unsent()
            agreed = handshake.agreed(last)
        except HandshakeFailed:
            await self._write([handshake.unsent()])  # the alert that tells the other side why
            self._broken, self.refused = "the handshake failed", True
            raise
        await self._write([last])
        self._sealing, self._opening, self._rest = agreed.sealing, agreed.opening, agreed.early
        return agreed.certificate

    async def send_all(self, data: bytes | memoryview) -> None:
        if self._ended:
            raise Unreachable("the stream was ended by us")
        view = memoryview(data).cast("B")
        for start in range(0, len(view), PIECE_BYTES):
            await self._send(view[start : start + PIECE_BYTES])
        if not view:
            await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int) -> bytes:
        received = bytearray(min(max_bytes, RECORD_BYTES))
        size = await self.receive_into(memoryview(received))
        return bytes(received[:size])

    async def receive_into(self, target: memoryview) -> int:
        """As `ByteStream.receive_into`: as much as can be had without waiting for more."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check()
        wanted = min(PIECE_BYTES, len(target) + (len(target) // RECORD_BYTES + 2) * OVERHEAD_BYTES)
        have = len(self._rest)
        self._scratch.came.memory[:have] = self._rest
        while True:
            size = self._open(have, target)
            if size or self._over(target):
                # What was decrypted is the caller's: no cancellation may lose it.
                await trio.lowlevel.cancel_shielded_checkpoint()
                return size
            have = await self._read(wanted)

    def unsent(self) -> int:
        """Bytes, of ciphertext, that the kernel holds until the other side has them.

        0 where the system does not say.
        """
        request = getattr(termios, "TIOCOUTQ", None)  # Linux: SIOCOUTQ, tcp(7)
        if request is None or self._broken:
            return 0
        answer = bytearray(4)
        try:
            fcntl.ioctl(self._transport.socket.fileno(), request, answer)
        except OSError:
            return 0
        return int.from_bytes(answer, sys.byteorder)

    def segments(self) -> SegmentCounts:
        """What the kernel counted on this connection."""
        return SegmentCounts() if self._broken else segments(self._transport.socket)

    async def send_eof(self) -> None:
        """close_notify: TLS 1.3 allows the other direction to go on."""
        if self._ended:
            return
        self._check()
        self._ended = True
        await self._send(None)

    async def linger(self) -> None:
        """Let the other side read the alert that was sent, then close.

        A socket that is closed with unread bytes resets the connection, and the reset destroys
        what is on its way. Takes at most `LINGER_S`, and never raises but for cancellation.
        """
        sock, room, read = self._transport.socket, bytearray(1 << 16), 0
        try:
            with trio.move_on_after(LINGER_S):
                sock.shutdown(socket.SHUT_WR)
                while read < LINGER_BYTES and (size := await sock.recv_into(room)):
                    read += size
        except (OSError, trio.ClosedResourceError):
            # The other side is gone, so it needs no alert.
            pass
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Never raises, waits for nobody."""
        self._broken = self._broken or "the stream was closed"
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.aclose_forcefully(self._transport)

    # ------------------------------------------------------------------------------------------------

    async def _send(self, content: memoryview | None) -> None:
        """A piece, or the end, by one task at a time: records are numbered."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            # Mostly free: waiting for a lock that is free is a turn of the event loop.
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            self._check()
            sealing, opening = self._sealing, self._opening
            if sealing is None or opening is None:
                raise Unreachable("there was no handshake")
            records: list[memoryview | bytes] = []
            if opening.update_asked or sealing.spent:
                opening.update_asked = False
                records.append(sealing.update())
            records += (
                [sealing.close()]
                if content is None
                else sealing.data(content, self._scratch.sealed)
            )
            await self._write(records)
        finally:
            self._sending.release()
            self._send_alert()

    def _open(self, have: int, target: memoryview) -> int:
        """Into `target` what can be had without waiting."""
        opening, came = self._opening, self._scratch.came
        if opening is None:
            raise Unreachable("there was no handshake")
        try:
            used, size = opening.open(came, have, target)
        except RecordError as error:
            self._alert = error.alert
            unreachable = self._break(f"TLS: {error}")
            self._send_alert()
            raise unreachable from error
        self._rest = bytes(came.memory[used:have])
        return size

    def _send_alert(self) -> None:
        """Tell the other side why this session is over, unless a record is under way: then whoever
        sends that record does so. Without room in the socket the alert is given up, since the other
        side does not read."""
        if self._alert is None or self._sealing is None or self._sending.locked():
            return
        record = self._sealing.alert(self._alert)
        self._alert = None
        # The connection is gone, or the other side does not read.
        with suppress(OSError):
            self.refused = os.write(self._transport.socket.fileno(), record) == len(record)

    def _over(self, target: memoryview) -> bool:
        """Whether nothing is to be waited for."""
        return not target or self._opening is None or self._opening.ended

    async def _read(self, wanted: int) -> int:
        """As much as `wanted` behind what came before, in the scratch until the next turn of the
        loop.

        Returns how much lies there; in a handshake 0 is the connection's end.
        """
        sock, memory, rest = self._transport.socket, self._scratch.came.memory, self._rest
        begun = len(rest)
        try:
            while True:
                memory[:begun] = rest
                try:
                    # Not through trio's socket: its checkpoint after a read would let another
                    # session use the scratch before us.
                    received = os.readv(sock.fileno(), [memory[begun : begun + wanted]])
                    break
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(sock)
        except (OSError, trio.ClosedResourceError) as error:
            raise self._break(f"connection broken: {error}") from error
        if not received and self._opening is not None:
            # No close_notify: somebody may have cut it short.
            raise self._break("the connection ended without a word")
        return begun + received

    async def _write(self, records: Sequence[memoryview | bytes]) -> None:
        """As trio's `SocketStream.send_all`, which takes several times as long for each piece to
        find out that it need not wait.

        What has to wait is copied out of the scratch.
        """
        sock = self._transport.socket
        try:
            try:
                sent = os.writev(sock.fileno(), records)
            except BlockingIOError:
                sent = 0
            if sent < sum(map(len, records)):
                data = memoryview(b"".join(records))[sent:]
                while data:
                    await trio.lowlevel.wait_writable(sock)
                    try:
                        data = data[os.write(sock.fileno(), data) :]
                    except BlockingIOError:
                        continue
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
