"""Direct TCP with mutual TLS 1.3, where each side expects one exact certificate of the other.

This node calls the peer, or asks the peer to call. Whoever calls, the side that wants the stream is
the TLS client.
"""

from __future__ import annotations

import trio

from daemon.network.addresses import kind_of
from daemon.network.connect_race import ConnectRace, Target
from daemon.network.paths.direct_server import DirectServer
from daemon.network.paths.direct_stream import DirectStream
from daemon.network.paths.path import NoPath, TransportContext
from daemon.network.paths.tls_client import TlsClient
from daemon.network.tcp import StreamListener
from daemon.network.tcp_info import SegmentCounts
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.network.reachability import KIND_OF, PathKind, Way
from protocol.ports.byte_stream import StreamHandler
from protocol.ports.endpoint import Endpoint

CONNECT_TIMEOUT_S = 5.0


class DirectTransport:
    """Opens bulk streams without a third node; serves those of peers that call."""

    kind: PathKind = "direct"

    def __init__(self, context: TransportContext, client: TlsClient, server: DirectServer) -> None:
        self._context, self._client, self._server = context, client, server

    async def open(self, endpoint: Endpoint, protocol: str) -> DirectStream:
        """A bulk stream.

        Raises:
            NoPath: When no TCP connection came about, in either direction.
            Unreachable: When the peer does not serve the protocol or is not who we expect.
        """
        reasons: list[str] = []
        for way in self._context.ways_to(endpoint):
            if KIND_OF[way] == self.kind:
                try:
                    transport = await self._connect(endpoint, way)
                except Unreachable as error:
                    reasons.append(str(error))
                else:
                    return await self._client.open(transport, endpoint, protocol, self.kind)
        raise NoPath("; ".join(reasons) or f"neither {endpoint.peer} nor this node can be called")

    async def _connect(self, endpoint: Endpoint, way: Way) -> trio.SocketStream:
        if way == "call_back":
            return await self._context.connect_around(endpoint.peer, way)
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
        _, stream = found
        return stream

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        self._server.serve(protocol, handler)

    def segments(self, peer: PeerId) -> SegmentCounts:
        """What the kernel counted on the open streams to `peer`, of every kind but libp2p."""
        return self._client.segments(peer)

    async def listen(self, listener: StreamListener) -> None:
        """Accept connections until cancelled."""
        await self._server.listen(listener)

    async def cut(self) -> None:
        """Break every stream that this node opened: the network ends."""
        await self._client.cut()
