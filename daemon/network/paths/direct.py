"""Direct TCP with mutual TLS 1.3, where each side expects one exact certificate of the other."""

from __future__ import annotations

from weakref import WeakSet

import trio

from daemon.network.addresses import kind_of
from daemon.network.connect_race import ConnectRace, Target
from daemon.network.paths.direct_server import DirectServer
from daemon.network.paths.direct_stream import (
    ANSWERS,
    HANDSHAKE_TIMEOUT_S,
    OPENED,
    DirectStream,
    encode_protocol,
)
from daemon.network.paths.path import NoPath, PathKind, TransportContext
from daemon.network.tcp import StreamListener, disable_nagle, remote_host
from daemon.network.tcp_info import SegmentCounts
from daemon.network.tls.handshake import HandshakeFailed, TlsContext
from daemon.network.tls.record_socket import ScratchBuffers
from daemon.network.tls.session import TlsSession
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.ports.byte_stream import StreamHandler
from protocol.ports.endpoint import Endpoint

CONNECT_TIMEOUT_S = 5.0


class DirectTransport:
    """Opens bulk streams by calling the endpoint's hosts; serves those of peers that call."""

    kind: PathKind = "direct"

    def __init__(self, context: TransportContext) -> None:
        self._context = context
        self._scratch = ScratchBuffers()
        self._server = DirectServer(context, self._scratch)
        self._tls = TlsContext(context.certificate.path, server_side=False)
        self._sessions: WeakSet[TlsSession] = WeakSet()
        self._sessions_to: dict[PeerId, WeakSet[TlsSession]] = {}

    async def open(self, endpoint: Endpoint, protocol: str) -> DirectStream:
        """A bulk stream.

        Raises:
            NoPath: When no TCP connection came about at any of the endpoint's hosts.
            Unreachable: When the peer does not serve the protocol or is not who we expect.
        """
        transport = await self._connect(endpoint)
        disable_nagle(transport)
        session = TlsSession(transport, self._tls, endpoint.certificate.__eq__, self._scratch)
        self._sessions.add(session)
        opened = False
        try:
            with trio.fail_after(HANDSHAKE_TIMEOUT_S):
                await session.handshake()
                name = encode_protocol(protocol)
                await session.send_all(bytes((len(name),)) + name)
                answer = await session.receive_some(1)
            if answer != OPENED:
                raise Unreachable(
                    f"{protocol}: {endpoint.peer} {ANSWERS.get(answer, 'closed the connection')}"
                )
            opened = True
        except trio.TooSlowError:
            raise Unreachable(
                f"{endpoint.peer} did not answer within {HANDSHAKE_TIMEOUT_S:.0f} s"
            ) from None
        except HandshakeFailed as error:
            self._context.refusals.count("tls", f"{endpoint.peer} at {endpoint.hosts}: {error}")
            raise Unreachable(f"{endpoint.peer} is not the peer we expect: {error}") from error
        finally:
            if not opened and not (
                session.refused and self._context.closer.start(TlsSession.linger, session)
            ):
                await session.aclose()
        self._sessions_to = {
            peer: sessions for peer, sessions in self._sessions_to.items() if sessions
        }
        self._sessions_to.setdefault(endpoint.peer, WeakSet()).add(session)
        host = remote_host(transport)
        self._context.on_met(endpoint.peer, host)
        return DirectStream(
            session, endpoint.peer, self._context.traffic, self._context.closer, host
        )

    async def _connect(self, endpoint: Endpoint) -> trio.SocketStream:
        hosts = self._context.hosts_of(endpoint)
        if not hosts:
            raise NoPath(f"no address of {endpoint.peer} may be called for bulk streams")
        race = ConnectRace(
            [Target(host, kind_of(host), host, endpoint.port) for host in hosts],
            CONNECT_TIMEOUT_S,
        )
        found = await race.next_stream()
        if found is None:
            raise NoPath(f"no bulk connection to {endpoint.peer} ({'; '.join(race.reasons)})")
        return found[1]

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        self._server.serve(protocol, handler)

    def segments(self, peer: PeerId) -> SegmentCounts:
        """What the kernel counted on the open streams that this node opened to `peer`."""
        sessions = self._sessions_to.get(peer, ())
        return sum((session.segments() for session in sessions), SegmentCounts())

    async def listen(self, listener: StreamListener) -> None:
        """Accept connections until cancelled."""
        await self._server.listen(listener)

    async def cut(self) -> None:
        """Break every stream that this node opened: the network ends."""
        for session in list(self._sessions):
            await session.aclose()
