"""A bulk stream over one TLS session, and how its two sides agree on a protocol.

    client                                    server
    TCP, TLS handshake, both certificates ->  whose certificate is it? unknown: refuse ("tls")
    length (1 byte), protocol (ASCII)     ->  served, and room left? 1 byte back: 0, or why not
    the protocol's own bytes follow in both directions, each ended by its own close_notify

The server's byte proves to the client that it was let in: a TLS 1.3 client finishes its handshake
before the server has judged the client's certificate.
"""

from __future__ import annotations

from daemon.network.byte_counter import ByteCounter
from daemon.network.graceful_close import BackgroundCloser, close_gracefully
from daemon.network.tls.session import TlsSession
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.network.reachability import PathKind

# Our protocols' names have about 25 bytes.
MAX_PROTOCOL_BYTES = 100
# Until the handshake is done and the protocol agreed: three round trips of 500 ms, and a busy peer.
HANDSHAKE_TIMEOUT_S = 5.0

OPENED, UNKNOWN, BUSY = b"\x00", b"\x01", b"\x02"
ANSWERS = {UNKNOWN: "does not serve it", BUSY: "has no room"}


class DirectStream:
    """A `ByteStream` over one TLS session."""

    def __init__(
        self,
        session: TlsSession,
        peer: PeerId,
        traffic: ByteCounter,
        closer: BackgroundCloser,
        kind: PathKind,
        host: str = "",
    ) -> None:
        """`host` is where the peer was called; empty when the peer called."""
        self.host = host
        self.kind = kind
        self._session = session
        self._peer = peer
        self._traffic = traffic
        self._closer = closer
        self._closed = False

    @property
    def peer(self) -> PeerId:
        return self._peer

    async def send_all(self, data: bytes | memoryview) -> None:
        await self._session.send_all(data)
        self._traffic.sent += memoryview(data).nbytes

    async def receive_some(self, max_bytes: int) -> bytes:
        data = await self._session.receive_some(max_bytes)
        self._traffic.received += len(data)
        return data

    async def receive_into(self, target: memoryview) -> int:
        size = await self._session.receive_into(target)
        self._traffic.received += size
        return size

    def unsent(self) -> int:
        return self._session.unsent()

    async def send_eof(self) -> None:
        await self._session.send_eof()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        can_end = self._session.usable or self._session.refused
        if not can_end or not self._closer.start(close_gracefully, self):
            await self.abort()

    async def linger(self) -> None:
        if self._session.refused:
            await self._session.linger()

    async def abort(self) -> None:
        """Cut the stream off now. Never raises."""
        self._closed = True
        await self._session.aclose()


def encode_protocol(protocol: str) -> bytes:
    """A protocol's name as it travels, without its length."""
    name = protocol.encode("ascii")
    if not 0 < len(name) <= MAX_PROTOCOL_BYTES:
        raise ValueError(f"a protocol's name has 1 to {MAX_PROTOCOL_BYTES} characters")
    return name


async def receive_exactly(session: TlsSession, size: int) -> bytes:
    """`size` bytes. Raises `Unreachable` when the session ends before."""
    data = b""
    while len(data) < size:
        piece = await session.receive_some(size - len(data))
        if not piece:
            raise Unreachable("ended in the middle of its first frame")
        data += piece
    return data
