"""Bulk streams over connections that a third node brought about: punched or relayed.

TLS runs from end to end, as over a direct connection.
"""

from __future__ import annotations

import trio

from daemon.network.paths.direct_stream import DirectStream
from daemon.network.paths.path import NoPath, TransportContext
from daemon.network.paths.tls_client import TlsClient
from daemon.network.tcp import StreamListener
from daemon.network.tcp_info import SegmentCounts
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.network.reachability import KIND_OF, PathKind
from protocol.ports.byte_stream import StreamHandler
from protocol.ports.endpoint import Endpoint


class AroundTransport:
    """Opens bulk streams of one of these two kinds."""

    def __init__(self, kind: PathKind, context: TransportContext, client: TlsClient) -> None:
        self.kind = kind
        self._context, self._client = context, client

    async def open(self, endpoint: Endpoint, protocol: str) -> DirectStream:
        """A bulk stream.

        Raises:
            NoPath: When this way cannot work for the pair, or did not.
            Unreachable: When the peer does not serve the protocol or is not who we expect.
        """
        ways = [way for way in self._context.ways_to(endpoint) if KIND_OF[way] == self.kind]
        if not ways:
            raise NoPath(f"no {self.kind} connection: a router changes ports")
        try:
            transport = await self._context.connect_around(endpoint.peer, ways[0])
        except Unreachable as error:
            raise NoPath(f"no {self.kind} connection: {error}") from error
        return await self._client.open(transport, endpoint, protocol, self.kind)

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Nothing of its own: the server of direct streams serves these too."""

    def segments(self, peer: PeerId) -> SegmentCounts:
        """None of its own: the client counts the segments of all kinds together."""
        return SegmentCounts()

    async def listen(self, listener: StreamListener) -> None:
        """Nothing to accept: the network hands these connections to the server."""

    async def cut(self) -> None:
        """Nothing to cut: the client cuts the streams of all kinds."""
        await trio.lowlevel.checkpoint()
