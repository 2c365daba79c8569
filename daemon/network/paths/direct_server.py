"""Serves direct bulk streams: who connects, what it asks for, and who makes room.

Strangers can multiply three things here. Each has a bound and a rule for who makes room:

- unfinished handshakes: `limits/pending_connections.py` chooses which one is dropped;
- sessions: the peer with the most sessions, of those that do not matter, gives one up;
- certificates: `paths/admission.py` forgets the one admitted first.
"""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing

import trio

from daemon.network.limits.pending_connections import PendingConnection, PendingConnections
from daemon.network.limits.prefixes import prefix_of
from daemon.network.limits.stream_quota import StreamQuota
from daemon.network.paths.direct_stream import (
    BUSY,
    HANDSHAKE_TIMEOUT_S,
    MAX_PROTOCOL_BYTES,
    OPENED,
    UNKNOWN,
    DirectStream,
    encode_protocol,
    receive_exactly,
)
from daemon.network.paths.path import TransportContext
from daemon.network.tcp import StreamListener, disable_nagle, remote_host
from daemon.network.tls.handshake import HandshakeFailed, TlsContext
from daemon.network.tls.record_socket import ScratchBuffers
from daemon.network.tls.session import TlsSession
from daemon.network.traversal.preamble import Preamble, has_preamble, read_preamble
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.network.reachability import PathKind
from protocol.ports.byte_stream import StreamHandler
from protocol.ports.network import MAX_STREAMS_PER_PEER

# Open at once, of all peers: 32 members of a group with every slice in flight, and room.
MAX_SESSIONS = 512
# Unfinished at once, from all addresses: bounds what a flood of half-open connections can hold.
MAX_HANDSHAKES = 128
# An incoming connection must send its first byte within this time.
FIRST_BYTE_S = 3.0


class DirectServer:
    """Accepts TLS sessions of admitted peers and runs the handlers that they ask for."""

    def __init__(self, context: TransportContext, scratch: ScratchBuffers) -> None:
        self._context = context
        self._scratch = scratch
        self._tls = TlsContext(context.certificate.path, server_side=True)
        self._handlers: dict[bytes, StreamHandler] = {}
        self._quota = StreamQuota(MAX_STREAMS_PER_PEER)
        self._handshakes = PendingConnections(MAX_HANDSHAKES)
        # Sessions that others opened and that were let in.
        self._serving: dict[TlsSession, PeerId] = {}

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        name = encode_protocol(protocol)
        if name in self._handlers:
            raise ValueError(f"{protocol} is served already")
        self._handlers[name] = handler

    async def listen(self, listener: StreamListener) -> None:
        """Accept connections until cancelled.

        Where no file descriptors are left, trio itself waits and goes on.
        """
        await trio.serve_listeners(self._serve_called, [listener])

    async def _serve_called(self, transport: trio.SocketStream) -> None:
        await self.serve_connection(transport, "direct")

    async def serve_connection(self, transport: trio.SocketStream, kind: PathKind) -> None:
        """Serve one connection until it is over. The caller closes its socket."""
        disable_nagle(transport)
        refusals = self._context.refusals
        scope = trio.CancelScope()
        heard = trio.Event()
        pending = PendingConnection(
            prefix_of(remote_host(transport)), trio.current_time(), heard.is_set, scope.cancel
        )
        if self._handshakes.begin(pending) is not None:
            refusals.count(
                "busy", f"an unfinished handshake made room: {len(self._handshakes)} are open"
            )
        session = TlsSession(transport, self._tls, self._is_admitted, self._scratch)
        async with aclosing(session):
            greeted: tuple[DirectStream, StreamHandler] | Preamble | None = None
            try:
                with scope:
                    greeted = await self._greet(session, transport, heard, kind)
                    if greeted is None and session.refused:
                        await session.linger()
                    if isinstance(greeted, Preamble):
                        # It keeps its place meanwhile, so that a flood of preambles is bounded too.
                        await self._context.serve_preamble(greeted, transport)
            finally:
                self._handshakes.end(pending)
            if greeted is not None and not isinstance(greeted, Preamble):
                stream, handler = greeted
                await self._make_room()
                self._serving[session] = stream.peer
                try:
                    release = self._quota.acquire(stream.peer)
                    await self._context.run_handler(stream, handler, release)
                finally:
                    del self._serving[session]

    def _is_admitted(self, certificate: bytes) -> bool:
        return self._context.admitted.peer_of(certificate) is not None

    async def _make_room(self) -> None:
        """Close one session when there are as many as may be.

        It is one of the peer with the most sessions, among peers that do not matter.
        """
        if len(self._serving) < MAX_SESSIONS:
            return
        held = Counter(self._serving.values())
        matters = self._context.admitted.matters
        chosen = max(
            self._serving,
            key=lambda session: (
                not matters(self._serving[session]),
                held[self._serving[session]],
            ),
        )
        self._context.refusals.count(
            "busy", f"{len(self._serving)} bulk sessions: one of {self._serving[chosen]} makes room"
        )
        await chosen.aclose()

    async def _greet(
        self,
        session: TlsSession,
        transport: trio.SocketStream,
        heard: trio.Event,
        kind: PathKind,
    ) -> tuple[DirectStream, StreamHandler] | Preamble | None:
        """Find out who connected and which protocol it wants; None when it is refused.

        A connection that a peer called may begin with a preamble instead of TLS.
        """
        refusals = self._context.refusals
        try:
            with trio.fail_after(FIRST_BYTE_S):
                await trio.lowlevel.wait_readable(transport.socket.fileno())
            heard.set()
            with trio.fail_after(HANDSHAKE_TIMEOUT_S):
                if kind == "direct" and await has_preamble(transport):
                    return await read_preamble(transport)
                certificate = await session.handshake()
                peer = self._context.admitted.peer_of(certificate)
                if peer is None:
                    refusals.count("tls", "a certificate that was not admitted")
                    return None
                return await self._agree_on_protocol(session, peer, kind)
        except trio.TooSlowError:
            refusals.count("timeout", "a bulk connection that went silent in its handshake")
        except HandshakeFailed as error:
            refusals.count("tls" if error.stranger else "handshake", str(error))
        except Unreachable as error:
            refusals.count("handshake", str(error))
        return None

    async def _agree_on_protocol(
        self, session: TlsSession, peer: PeerId, kind: PathKind
    ) -> tuple[DirectStream, StreamHandler] | None:
        refusals = self._context.refusals
        length = (await receive_exactly(session, 1))[0]
        if not 0 < length <= MAX_PROTOCOL_BYTES:
            refusals.count("oversized", f"{peer} sent a protocol of {length} bytes")
            return None
        name = await receive_exactly(session, length)
        handler = self._handlers.get(name)
        if handler is None:
            refusals.count("unknown_kind", f"{peer} asked for {name!r}")
            await session.send_all(UNKNOWN)
            return None
        if self._quota.full(peer):
            refusals.count("busy", f"{peer} has its {MAX_STREAMS_PER_PEER} bulk streams")
            await session.send_all(BUSY)
            return None
        await session.send_all(OPENED)
        context = self._context
        return DirectStream(session, peer, context.traffic, context.closer, kind), handler
