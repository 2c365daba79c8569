"""What a network can do only while it runs: connect, open streams, fail."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import trio
from libp2p.network.stream.net_stream import NetStream

from daemon.network.addresses import PeerAddress
from daemon.network.libp2p.host import Host
from daemon.network.own_addresses import NOT_RUNNING, OwnAddresses
from daemon.network.peers.services import PeerServices
from daemon.network.traversal.preamble import Preamble
from daemon.network.traversal.relay import RelayFigures
from daemon.network.traversal.services import TraversalServices
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.network.port_mapping import PortMapping
from protocol.network.reachability import UNKNOWN_REACHABILITY, Reachability, Way
from protocol.ports.endpoint import Endpoint
from protocol.ports.network import RelayUse


class RunningParts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that exist only while the network runs."""

    host: Host
    peers: PeerServices
    own: OwnAddresses
    traversal: TraversalServices
    nursery: trio.Nursery


class WhileRunning:
    """Operations on the running parts. Before and after, they do nothing or raise `Unreachable`."""

    def __init__(self) -> None:
        self.parts: RunningParts | None = None

    def learn(self, addresses: list[PeerAddress]) -> None:
        """Note addresses that the DHT gave."""
        if self.parts is not None:
            self.parts.peers.manager.learn(addresses)

    def port_mapping(self) -> PortMapping:
        """What the home router maps now."""
        return self.parts.own.mapping if self.parts is not None else NOT_RUNNING

    def pinholes(self) -> PortMapping:
        """Whether the home router lets calls over IPv6 in."""
        return self.parts.own.pinholes if self.parts is not None else NOT_RUNNING

    def peers_changed(self) -> None:
        """Look again at which peers to call."""
        if self.parts is not None:
            self.parts.peers.changed.set()

    async def connect_at(self, peer: PeerId, addresses: list[PeerAddress]) -> None:
        """Connect to a peer that the DHT named. Raises `Unreachable`."""
        parts = self.required()
        parts.peers.manager.learn(addresses)
        await parts.peers.manager.connect(peer)

    async def open_stream(self, peer: PeerId, protocol: str) -> NetStream:
        """Open a stream to a known peer, and connect first where needed. Raises `Unreachable`."""
        parts = self.required()
        await parts.peers.manager.connect(peer)
        return await parts.host.open_stream(peer, protocol)

    def bulk_hosts(self, endpoint: Endpoint) -> tuple[str, ...]:
        """The hosts to call for a bulk stream."""
        return self.parts.peers.targets.bulk_hosts(endpoint) if self.parts is not None else ()

    def met_for_bulk(self, peer: PeerId, host: str) -> None:
        """Note that the peer showed its certificate at `host`."""
        if self.parts is not None:
            self.parts.peers.targets.met_for_bulk(peer, host)

    async def open_connected(self, peer: PeerId, protocol: str) -> NetStream:
        """Open a stream over a connection that is up. Raises `Unreachable`."""
        return await self.required().host.open_stream(peer, protocol)

    async def connect_around(self, peer: PeerId, way: Way) -> trio.SocketStream:
        """A TCP connection for bulk bytes in one of the ways that need others."""
        return await self.required().traversal.connector.connect(peer, "bulk", way)

    async def serve_preamble(self, preamble: Preamble, stream: trio.SocketStream) -> None:
        """Serve a connection that began with a preamble; dropped while nothing runs."""
        if self.parts is not None:
            await self.parts.traversal.serve_preamble(preamble, stream)

    @property
    def reach(self) -> Reachability:
        """Whether others can call this node, as far as is known."""
        return self.parts.traversal.monitor.reach if self.parts else UNKNOWN_REACHABILITY

    @property
    def misnamed(self) -> str:
        """What the user advertises, where members see this node elsewhere; else empty."""
        return self.parts.traversal.monitor.misnamed if self.parts else ""

    def relays(self) -> Mapping[PeerId, RelayUse]:
        """The relay of the last relayed bulk connection to each peer."""
        return self.parts.traversal.connector.relays if self.parts else {}

    def relay_figures(self) -> RelayFigures:
        """What this node relays for others."""
        return self.parts.traversal.relay.figures() if self.parts else RelayFigures()

    def crash(self, error: BaseException) -> None:
        """End the whole network with an error of our own that the library would hide."""

        async def fail() -> None:
            raise error

        if self.parts is not None:
            self.parts.nursery.start_soon(fail)

    def required(self) -> RunningParts:
        """The parts. Raises `Unreachable` while nothing runs."""
        if self.parts is None:
            raise Unreachable("the network is not running")
        return self.parts
