"""The real `Network` port, over the libp2p host, gossip, DHT, peer manager and bulk paths."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import msgspec
import trio

from daemon.network.diagnosis import diagnose
from daemon.network.libp2p.topic_subscription import TopicSubscription
from daemon.network.listeners import Listeners
from daemon.network.network_run import running_network
from daemon.network.paths.path import NoPath, Path
from daemon.network.permanent_parts import PermanentParts
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import BulkCertificate
from daemon.network.traversal.relay import RelayFigures
from protocol.identity import PeerId
from protocol.network.network_report import NetworkReport
from protocol.network.port_mapping import PortMapping
from protocol.network.reachability import Reachability, reachability_text
from protocol.ports.byte_stream import ByteStream, StreamHandler
from protocol.ports.endpoint import Endpoint
from protocol.ports.network import Link, LinkChange, RelayUse, Source, Traffic


class LibP2PNetwork:
    """A `protocol.ports.network.Network`.

    The constructor opens nothing. `serve`, `serve_bulk` and `subscribe` come before `running()`.
    """

    def __init__(
        self, settings: NetworkSettings, secret: bytes, certificate: BulkCertificate
    ) -> None:
        """
        Args:
            secret: The 32-byte Ed25519 seed of this node's key.

        Raises:
            UserError: "JOIN" for a malformed join address.
        """
        self._permanent = permanent = PermanentParts(settings, secret, certificate)
        self.entries = permanent.entries
        self._running = permanent.running
        self._control = permanent.control
        self._book = permanent.book
        self._connections = permanent.connections
        self._priority = permanent.priority
        self._gossip = permanent.gossip
        self._dht = permanent.dht
        self._paths = permanent.paths
        self._unreachable = permanent.unreachable
        self._listeners: Listeners | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen and join inside the block.

        Raises:
            UserError: "PORT" when a port cannot be used.
        """
        self._listeners = listeners = Listeners(self._permanent.settings, self.peer)
        async with running_network(self._permanent, listeners):
            yield

    # ---------------------------------------------------------------------------------- this node

    @property
    def peer(self) -> PeerId:
        return self._permanent.peer

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(map(str, self._listeners.addresses)) if self._listeners else ()

    @property
    def port(self) -> int:
        """The port on which others call; 0 before the network listens."""
        return self._listeners.port if self._listeners else 0

    @property
    def lost_port(self) -> int:
        """The port of the last run of this node, where another program has it now; else 0."""
        return self._listeners.lost_port if self._listeners else 0

    def port_mapping(self) -> PortMapping:
        """What the home router maps now."""
        return self._running.port_mapping()

    def pinholes(self) -> PortMapping:
        """Whether the home router lets calls over IPv6 in."""
        return self._running.pinholes()

    @property
    def endpoint(self) -> Endpoint:
        hosts, port = self._listeners.bulk_address if self._listeners else ((), 0)
        return Endpoint(
            peer=self.peer,
            hosts=hosts,
            port=port,
            certificate=self._permanent.certificate.der,
            reach=self.reach,
        )

    @property
    def reach(self) -> Reachability:
        """Whether others can call this node, as far as its members' calls have shown."""
        return self._running.reach

    @property
    def reach_text(self) -> str:
        """One sentence for a person: what others can do with this node's address."""
        return reachability_text(self.reach, self._running.misnamed)

    def members(self) -> tuple[str, ...]:
        """Multiaddrs of other members of what this node provides, connected now or a while ago.

        Members that are connected now come first.
        """
        known = self._book.addresses_of_members(
            self._connections.peers(), self._dht.provided, trio.current_time()
        )
        return tuple(map(str, known))

    def unreachable(self) -> frozenset[PeerId]:
        # Where a connection is up, its streams can carry bulk bytes too.
        return self._unreachable.now(trio.current_time()) - self._connections.peers()

    def relays(self) -> Mapping[PeerId, RelayUse]:
        used = self._running.relays().items()
        return {peer: use for peer, use in used if self.path_to(peer).kind == "relayed"}

    def keep(self, peers: frozenset[PeerId]) -> None:
        self._priority.keep(peers)

    def source_of(self, peer: PeerId) -> Source:
        return self._priority.source_of(peer)

    def relay_figures(self) -> RelayFigures:
        """What this node relays for others."""
        return self._running.relay_figures()

    # ---------------------------------------------------------------------------------- streams

    async def open_stream(self, peer: PeerId, protocol: str) -> ByteStream:
        return await self._control.open_stream(peer, protocol)

    async def open_bulk(self, endpoint: Endpoint, protocol: str) -> ByteStream:
        try:
            stream = await self._paths.open(endpoint, protocol)
        except NoPath:
            self._unreachable.note(endpoint.peer, trio.current_time())
            raise
        self._unreachable.clear(endpoint.peer)
        return stream

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        self._control.serve(protocol, handler)

    def serve_bulk(self, protocol: str, handler: StreamHandler) -> None:
        self._paths.serve(protocol, handler)

    def admit(self, endpoint: Endpoint) -> None:
        self._permanent.admitted.admit(endpoint)

    # ---------------------------------------------------------------------------------- gossip, DHT

    async def publish(self, topic: str, data: bytes) -> None:
        await self._gossip.publish(topic, data)

    def subscribe(
        self, topic: str, accept: Callable[[PeerId, bytes], bool], *, keep: bool = True
    ) -> TopicSubscription:
        return self._gossip.subscribe(topic, accept, keep=keep)

    async def provide(self, key: bytes) -> None:
        await self._dht.provide(key)

    async def find_providers(self, key: bytes) -> list[PeerId]:
        return await self._dht.find_providers(key)

    # ---------------------------------------------------------------------------------- measured

    def path_to(self, peer: PeerId) -> Path:
        """How bulk bytes to and from `peer` travel now, and why."""
        return self._paths.path_to(peer)

    async def diagnose(self) -> NetworkReport:
        """Measure how others reach this node. Raises `Unreachable` while nothing runs."""
        listeners = self._listeners
        assert listeners is not None
        return await diagnose(
            self._running.required(),
            listeners,
            self.links(),
            self._book.addresses_of,
            lambda peer: self.path_to(peer).reason,
        )

    def links(self) -> Sequence[Link]:
        return [self._measured(link) for link in self._connections.links()]

    def _measured(self, link: Link) -> Link:
        path = self._paths.path_to(link.peer)
        counted = self._connections.segments(link.peer) + path.segments
        # Before the first bulk stream, the way of the control connection is all that is known.
        kind = path.kind if self._paths.is_known(link.peer) else link.path
        return msgspec.structs.replace(
            link, path=kind, segments=counted.sent, retransmits=counted.retransmits
        )

    def changes(self) -> AsyncIterator[LinkChange]:
        return self._connections.changes()

    def traffic(self) -> Traffic:
        return Traffic(
            control_sent=self._permanent.control_traffic.sent,
            control_received=self._permanent.control_traffic.received,
            bulk_sent=self._permanent.bulk_traffic.sent,
            bulk_received=self._permanent.bulk_traffic.received,
        )

    def refusals(self) -> Mapping[str, int]:
        counts = self._permanent.refusals.snapshot()
        counts["busy"] += sum(one.refused_streams for one in self._connections.connections())
        return counts
