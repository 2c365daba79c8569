"""The bulk plane: direct TCP with mutual TLS 1.3, each side pinned to one exact certificate.

    client                                    server
    TCP, TLS handshake, both certificates ->  whose certificate is it? nobody's: refuse ("tls")
    length (1 byte), protocol (ASCII)     ->  is it served? is there room? -> 1 byte: 0 opened, else why not
    ... the protocol's own bytes, both ways, each direction ended by its own close_notify

The server's byte is what proves to the client that it was let in: a TLS 1.3 client is done before
the server has judged it.

What strangers can multiply here: unfinished handshakes (`handshakes.py` says which makes room),
sessions (of those a peer that does not matter gives one up, the peer with the most first), and
certificates (of those who do not matter the one admitted first makes room).
"""

from __future__ import annotations

import socket
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from weakref import WeakSet

import trio
from cryptography import x509

from daemon.network.error_boundary import Refusals
from daemon.network.graceful_close import BackgroundCloser, close_gracefully
from daemon.network.limits.pending_connections import PendingConnection, PendingConnections
from daemon.network.limits.prefixes import prefix_of
from daemon.network.limits.stream_quota import StreamQuota
from daemon.network.paths.selector import NoPath
from daemon.network.tcp_info import SegmentCounts
from daemon.network.tls.certificate import BulkCertificate
from daemon.network.tls.handshake import HandshakeFailed, TlsContext
from daemon.network.tls.session import ScratchBuffers, TlsSession, tune
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.ports.byte_stream import StreamHandler
from protocol.ports.endpoint import Endpoint
from protocol.ports.network import MAX_STREAMS_PER_PEER

MAX_PROTOCOL_BYTES = 100  # ours have about 25
# Open at once, all peers: 32 members of a group with every slice in flight, and room.
MAX_SESSIONS = 512
# Begun and not yet let in, all addresses: bounds what a flood of half-open connections can hold.
MAX_HANDSHAKES = 128
# Certificates believed at once: sixteen times the largest plan.
MAX_ADMITTED = 1024
# Three round trips of 500 ms, and a busy peer.
HANDSHAKE_TIMEOUT_S = 5.0
# Until an incoming connection must have said something.
FIRST_BYTE_S = 3.0
CONNECT_TIMEOUT_S = 5.0

OPENED, UNKNOWN, BUSY = b"\x00", b"\x01", b"\x02"
_ANSWERS = {UNKNOWN: "does not serve it", BUSY: "has no room"}


class BulkTraffic:
    """Payload bytes of all bulk streams."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0


class DirectStream:
    """A `ByteStream` over one TLS session."""

    def __init__(
        self,
        session: TlsSession,
        peer: PeerId,
        traffic: BulkTraffic,
        endings: BackgroundCloser,
        host: str = "",
    ) -> None:
        """`host` is where the peer was called."""
        self.host = host
        self._session = session
        self._peer = peer
        self._traffic = traffic
        self._endings = endings
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
        ends = self._session.usable or self._session.refused
        if not ends or not self._endings.start(close_gracefully, self):
            await self.abort()

    async def linger(self) -> None:
        if self._session.refused:
            await self._session.linger()

    async def abort(self) -> None:
        """Cut it off now. Never raises."""
        self._closed = True
        await self._session.aclose()


class BulkPlane:
    """Opens and serves bulk streams.

    `handle(stream, handler, release)` runs a handler, calls `release` at its end and returns when
    the stream is over.
    """

    def __init__(
        self,
        certificate: BulkCertificate,
        refusals: Refusals,
        endings: BackgroundCloser,
        handle: Callable[[DirectStream, StreamHandler, Callable[[], None]], Awaitable[None]],
        matters: Callable[[PeerId], bool] = lambda _peer: False,
    ) -> None:
        """`matters` says whose sessions never make room."""
        self.traffic = BulkTraffic()
        self._endings = endings
        self._refusals = refusals
        self._handle = handle
        self._handlers: dict[bytes, StreamHandler] = {}
        self._admitted: OrderedDict[PeerId, bytes] = OrderedDict()
        self._peers: dict[bytes, PeerId] = {}
        self._server_context = TlsContext(certificate.path, server_side=True)
        self._client_context = TlsContext(certificate.path, server_side=False)
        self._slots = StreamQuota(MAX_STREAMS_PER_PEER)
        self._open: WeakSet[TlsSession] = WeakSet()
        self._called: dict[PeerId, WeakSet[TlsSession]] = {}  # by whom we called
        self._scratch = ScratchBuffers()
        self._matters = matters
        # Sessions that others opened and that were let in.
        self._serving: dict[TlsSession, PeerId] = {}
        self._handshakes = PendingConnections(MAX_HANDSHAKES)

    async def cut(self) -> None:
        """Break every stream there is: the network is ending."""
        for session in list(self._open):
            await session.aclose()

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        name = _encode(protocol)
        if name in self._handlers:
            raise ValueError(f"{protocol} is served already")
        self._handlers[name] = handler

    def admit(self, endpoint: Endpoint) -> None:
        """Raises `PeerFault("malformed")` when the certificate is no certificate."""
        if self._admitted.get(endpoint.peer) == endpoint.certificate:
            self._admitted.move_to_end(endpoint.peer)
            return
        try:
            x509.load_der_x509_certificate(endpoint.certificate)
        except ValueError as error:
            raise PeerFault(
                "malformed", f"the endpoint of {endpoint.peer} holds no certificate: {error}"
            ) from error
        self._admitted[endpoint.peer] = endpoint.certificate
        self._admitted.move_to_end(endpoint.peer)
        # Keys are free: who matters stays, of the others the oldest goes.
        while len(self._admitted) > MAX_ADMITTED:
            del self._admitted[
                next(
                    (peer for peer in self._admitted if not self._matters(peer)),
                    next(iter(self._admitted)),
                )
            ]
        self._peers = {certificate: peer for peer, certificate in self._admitted.items()}

    def is_admitted(self, peer: PeerId) -> bool:
        return peer in self._admitted

    # ------------------------------------------------------------------------------------------------ opening

    async def open(self, endpoint: Endpoint, protocol: str) -> DirectStream:
        """Raises `Unreachable`."""
        transport = await self._connect(endpoint)
        tune(transport)
        expected = endpoint.certificate.__eq__
        session = TlsSession(transport, self._client_context, expected, self._scratch)
        self._open.add(session)
        opened = False
        try:
            with trio.fail_after(HANDSHAKE_TIMEOUT_S):
                await session.handshake()
                name = _encode(protocol)
                await session.send_all(bytes((len(name),)) + name)
                answer = await session.receive_some(1)
            if answer != OPENED:
                raise Unreachable(
                    f"{protocol}: {endpoint.peer} {_ANSWERS.get(answer, 'closed the connection')}"
                )
            opened = True
        except trio.TooSlowError:
            raise Unreachable(
                f"{endpoint.peer} did not answer within {HANDSHAKE_TIMEOUT_S:.0f} s"
            ) from None
        except HandshakeFailed as error:
            self._refusals.count("tls", f"{endpoint.peer} at {endpoint.hosts}: {error}")
            raise Unreachable(f"{endpoint.peer} is not the peer we expect: {error}") from error
        finally:
            if not opened and not (
                session.refused and self._endings.start(TlsSession.linger, session)
            ):
                await session.aclose()
        self._called = {peer: sessions for peer, sessions in self._called.items() if sessions}
        self._called.setdefault(endpoint.peer, WeakSet()).add(session)
        return DirectStream(
            session, endpoint.peer, self.traffic, self._endings, _host_of(transport)
        )

    def segments(self, peer: PeerId) -> SegmentCounts:
        """What the kernel counted on the streams that we opened to a peer and that are open."""
        return sum((session.segments() for session in self._called.get(peer, ())), SegmentCounts())

    async def _connect(self, endpoint: Endpoint) -> trio.SocketStream:
        reasons: list[str] = []
        for host in endpoint.hosts:
            try:
                with trio.fail_after(CONNECT_TIMEOUT_S):
                    return await trio.open_tcp_stream(host, endpoint.port)
            except trio.TooSlowError:
                reasons.append(f"{host}: no answer within {CONNECT_TIMEOUT_S:.0f} s")
            except (OSError, ValueError, OverflowError) as error:
                reasons.append(f"{host}: {error}")
        raise NoPath(f"no bulk connection to {endpoint.peer} ({'; '.join(reasons) or 'no hosts'})")

    # ------------------------------------------------------------------------------------------------ serving

    async def listen(self, listeners: list[trio.SocketListener]) -> None:
        """Accept until cancelled. trio itself waits and goes on when there are no file descriptors
        left.
        """
        await trio.serve_listeners(self._serve_one, listeners)

    async def _serve_one(self, transport: trio.SocketStream) -> None:
        tune(transport)
        scope = trio.CancelScope()
        heard = trio.Event()
        began = PendingConnection(
            prefix_of(_host_of(transport)), trio.current_time(), heard.is_set, scope.cancel
        )
        if self._handshakes.begin(began) is not None:
            self._refusals.count(
                "busy", f"an unfinished handshake made room: {len(self._handshakes)} are open"
            )
        session = TlsSession(
            transport,
            self._server_context,
            lambda certificate: certificate in self._peers,
            self._scratch,
        )
        async with aclosing(session):
            greeted: tuple[DirectStream, StreamHandler] | None = None
            try:
                with scope:
                    greeted = await self._greet(session, transport, heard)
                    if greeted is None and session.refused:
                        await session.linger()
            finally:
                self._handshakes.end(began)
            if greeted is not None:
                stream, handler = greeted
                await self._make_room()
                self._serving[session] = stream.peer
                try:
                    await self._handle(stream, handler, self._slots.take(stream.peer))
                finally:
                    del self._serving[session]

    async def _make_room(self) -> None:
        """With as many sessions as may be, the peer with the most of those that do not matter gives
        one up.
        """
        if len(self._serving) < MAX_SESSIONS:
            return
        held = Counter(self._serving.values())
        chosen = max(
            self._serving,
            key=lambda session: (
                not self._matters(self._serving[session]),
                held[self._serving[session]],
            ),
        )
        self._refusals.count(
            "busy", f"{len(self._serving)} bulk sessions: one of {self._serving[chosen]} makes room"
        )
        await chosen.aclose()

    async def _greet(
        self, session: TlsSession, transport: trio.SocketStream, heard: trio.Event
    ) -> tuple[DirectStream, StreamHandler] | None:
        """Who is it and what do they want; None when refused."""
        try:
            with trio.fail_after(FIRST_BYTE_S):
                await trio.lowlevel.wait_readable(transport.socket)
            heard.set()
            with trio.fail_after(HANDSHAKE_TIMEOUT_S):
                certificate = await session.handshake()
                peer = self._peers.get(certificate)
                if peer is None:
                    self._refusals.count("tls", "a certificate nobody told us of")
                    return None
                length = (await _exactly(session, 1))[0]
                if not 0 < length <= MAX_PROTOCOL_BYTES:
                    self._refusals.count("oversized", f"{peer} sent a protocol of {length} bytes")
                    return None
                name = await _exactly(session, length)
                handler = self._handlers.get(name)
                if handler is None:
                    self._refusals.count("unknown_kind", f"{peer} asked for {name!r}")
                    await session.send_all(UNKNOWN)
                elif self._slots.full(peer):
                    self._refusals.count(
                        "busy", f"{peer} has its {MAX_STREAMS_PER_PEER} bulk streams"
                    )
                    await session.send_all(BUSY)
                else:
                    await session.send_all(OPENED)
                    return DirectStream(session, peer, self.traffic, self._endings), handler
        except trio.TooSlowError:
            self._refusals.count("timeout", "a bulk connection that went silent in its handshake")
        except HandshakeFailed as error:
            self._refusals.count("tls" if error.stranger else "handshake", str(error))
        except Unreachable as error:
            self._refusals.count("handshake", str(error))
        return None


def bind(host: str, port: int) -> trio.SocketListener:
    """A listening socket.

    Raises `OSError`. No SO_REUSEPORT: a second daemon on one port must fail, not share.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(256)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def _host_of(transport: trio.SocketStream) -> str:
    """The other side's address; empty when it is gone already."""
    try:
        host: str = transport.socket.getpeername()[0]
    except OSError:
        return ""
    return host


def _encode(protocol: str) -> bytes:
    name = protocol.encode("ascii")
    if not 0 < len(name) <= MAX_PROTOCOL_BYTES:
        raise ValueError(f"a protocol's name has 1 to {MAX_PROTOCOL_BYTES} characters")
    return name


async def _exactly(session: TlsSession, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await session.receive_some(size - len(data))
        if not piece:
            raise Unreachable("ended in the middle of its first frame")
        data += piece
    return data
