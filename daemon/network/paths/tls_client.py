"""The calling side of bulk streams: TLS over a TCP connection that some way has led to."""

from __future__ import annotations

from weakref import WeakSet

import trio

from daemon.network.paths.direct_stream import (
    ANSWERS,
    HANDSHAKE_TIMEOUT_S,
    OPENED,
    DirectStream,
    encode_protocol,
)
from daemon.network.paths.path import NoPath, TransportContext
from daemon.network.tcp import disable_nagle, notice_loss, remote_host
from daemon.network.tcp_info import SegmentCounts
from daemon.network.tls.handshake import HandshakeFailed, TlsContext
from daemon.network.tls.record_socket import ScratchBuffers
from daemon.network.tls.session import TlsSession
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.network.reachability import PathKind
from protocol.ports.endpoint import Endpoint


class TlsClient:
    """Opens bulk streams over connections of every kind, and counts their segments."""

    def __init__(self, context: TransportContext, scratch: ScratchBuffers) -> None:
        self._context, self._scratch = context, scratch
        self._tls = TlsContext(context.certificate.path, server_side=False)
        self._sessions: WeakSet[TlsSession] = WeakSet()
        self._sessions_to: dict[PeerId, WeakSet[TlsSession]] = {}

    async def open(
        self, transport: trio.SocketStream, endpoint: Endpoint, protocol: str, kind: PathKind
    ) -> DirectStream:
        """A bulk stream over `transport`, which is closed when this fails.

        Raises:
            NoPath: When the other end of a connection that another node brought about never spoke.
            Unreachable: When the peer does not serve the protocol or is not who we expect.
        """
        disable_nagle(transport)
        notice_loss(transport)
        session = TlsSession(transport, self._tls, endpoint.certificate.__eq__, self._scratch)
        self._sessions.add(session)
        opened = shaken = False
        try:
            with trio.fail_after(HANDSHAKE_TIMEOUT_S):
                await session.handshake()
                shaken = True
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
        except Unreachable as error:
            # A relay closes the connection when the peer does not come. Another way may lead there.
            if kind == "relayed" and not shaken:
                raise NoPath(f"the relayed connection ended: {error}") from error
            raise
        finally:
            if not opened and not (
                session.refused and self._context.closer.start(TlsSession.linger, session)
            ):
                await session.aclose()
        self._sessions_to = {
            peer: sessions for peer, sessions in self._sessions_to.items() if sessions
        }
        self._sessions_to.setdefault(endpoint.peer, WeakSet()).add(session)
        host = remote_host(transport) if kind == "direct" else ""
        if host:
            self._context.on_met(endpoint.peer, host)
        return DirectStream(
            session, endpoint.peer, self._context.traffic, self._context.closer, kind, host
        )

    def segments(self, peer: PeerId) -> SegmentCounts:
        """What the kernel counted on the open streams that this node opened to `peer`."""
        sessions = self._sessions_to.get(peer, ())
        return sum((session.segments() for session in sessions), SegmentCounts())

    async def cut(self) -> None:
        """Break every stream that this node opened: the network ends."""
        for session in list(self._sessions):
            await session.aclose()
