"""The real `Network` port: composes the libp2p host, gossip, DHT, peer manager and bulk paths.

Everything that needs a socket lives between the entry and the exit of `running()`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext

import msgspec
import trio

from daemon.network.addresses import primary_hosts
from daemon.network.byte_counter import ByteCounter
from daemon.network.diagnosis import diagnose
from daemon.network.error_boundary import Refusals
from daemon.network.graceful_close import BackgroundCloser
from daemon.network.libp2p.connection import MeasuredYamux
from daemon.network.libp2p.control_stream import ControlStream
from daemon.network.libp2p.dht import Dht
from daemon.network.libp2p.gossip import Gossip
from daemon.network.libp2p.host import Host
from daemon.network.libp2p.library_settings import number_own_records_from
from daemon.network.libp2p.service_manager import run_service
from daemon.network.libp2p.stream_server import StreamServer
from daemon.network.libp2p.topic_subscription import TopicSubscription
from daemon.network.listeners import Listeners
from daemon.network.own_addresses import OwnAddresses
from daemon.network.paths.admission import AdmittedPeers
from daemon.network.paths.path import NoPath, Path, TransportContext
from daemon.network.paths.selector import PathSelector, make_transports
from daemon.network.peers.address_book import AddressBook
from daemon.network.peers.entry_points import EntryPoints
from daemon.network.peers.exchange import PEERS_PROTOCOL
from daemon.network.peers.lan_discovery import LanDiscovery
from daemon.network.peers.live_connections import LiveConnections
from daemon.network.peers.own_record import OwnRecord
from daemon.network.peers.priority import PeerPriority
from daemon.network.peers.services import PeerServices
from daemon.network.peers.unreachable import UnreachablePeers
from daemon.network.running_parts import RunningParts, WhileRunning
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import BulkCertificate
from daemon.network.traversal.context import OwnPorts, TraversalContext
from daemon.network.traversal.expected import ExpectedConnections
from daemon.network.traversal.messages import TRAVERSAL_PROTOCOL, Purpose
from daemon.network.traversal.relay import RelayFigures
from daemon.network.traversal.services import TraversalServices
from daemon.system.trio_types import TaskStatus
from protocol.identity import PeerId, Signer
from protocol.network.network_report import NetworkReport
from protocol.network.port_mapping import PortMapping
from protocol.network.reachability import PathKind, Reachability, Way, ways_to
from protocol.ports.byte_stream import ByteStream, StreamHandler
from protocol.ports.endpoint import Endpoint
from protocol.ports.network import Link, LinkChange, Source, Traffic


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
        self._settings = settings
        self._secret = secret
        self._signer = Signer(secret)
        self._certificate = certificate
        self._refusals = Refusals()
        self._control = ByteCounter()
        self._bulk_traffic = ByteCounter()
        self._closer = BackgroundCloser()
        self._running = running = WhileRunning()
        self._book = AddressBook(self.peer)
        self.entries = EntryPoints(
            settings.join, self._book, settings.read_texts, running.peers_changed
        )
        self._connections = LiveConnections(self._connection_ended)
        self._priority = PeerPriority(self._book, self._connections)
        matters, prefix_of = self._priority.matters, self._priority.prefix_of
        self._server = StreamServer(self._refusals, self._control, self._closer, matters)
        self._gossip = Gossip(
            self.peer,
            self._refusals,
            self._control,
            running.crash,
            self._priority.is_known,
            prefix_of,
            matters,
        )
        self._dht = Dht(running.learn, running.connect_at, matters, prefix_of)
        self._handlers: dict[str, StreamHandler] = {}
        self._admitted = AdmittedPeers(matters)
        made = make_transports(self._transport_context())
        self._bulk_server = made.server
        self._paths = PathSelector(made.all, self._ways_to)
        self._expected = ExpectedConnections()
        self._unreachable = UnreachablePeers()
        self._listeners: Listeners | None = None

    def _transport_context(self) -> TransportContext:
        return TransportContext(
            certificate=self._certificate,
            admitted=self._admitted,
            refusals=self._refusals,
            closer=self._closer,
            traffic=self._bulk_traffic,
            run_handler=self._server.run_handler,
            hosts_of=self._running.bulk_hosts,
            on_met=self._running.met_for_bulk,
            ways_to=self._ways_to,
            connect_around=self._running.connect_around,
            serve_preamble=self._running.serve_preamble,
            open_stream=self.open_stream,
            serve_stream=self.serve,
        )

    def _ways_to(self, endpoint: Endpoint) -> tuple[Way, ...]:
        met = self._connections.host_of(endpoint.peer)
        elsewhere = bool(met) and met not in endpoint.hosts
        return ways_to(self._running.reach, endpoint.reach, seen_elsewhere=elsewhere)

    def _traversal(self, host: Host, listeners: Listeners) -> TraversalServices:
        async def accept(purpose: Purpose, stream: trio.SocketStream, kind: PathKind) -> None:
            if purpose == "bulk":
                await self._bulk_server.serve_connection(stream, kind)
            else:
                await host.inbound.serve(stream, kind)

        async def open_stream(peer: PeerId, protocol: str) -> ByteStream:
            stream = await self._running.open_connected(peer, protocol)
            return ControlStream(stream, peer, self._control, self._closer)

        context = TraversalContext(
            connections=self._connections,
            open_stream=open_stream,
            accept=accept,
            expected=self._expected,
            refusals=self._refusals,
            matters=self._priority.matters,
            is_in_run=lambda peer: self._book.provides(peer, self._dht.provided),
            reach_of=self._admitted.reach_of,
        )
        ports = OwnPorts(control=listeners.port, bulk=listeners.bulk_port)
        advertised = tuple(address.host for address in listeners.addresses)

        def own_hosts() -> tuple[str, ...]:
            return (*primary_hosts(), *advertised)

        return TraversalServices(context, ports, own_hosts, self._settings.relay)

    # ---------------------------------------------------------------------------------- life

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen and join inside the block.

        Raises:
            UserError: "PORT" when a port cannot be used.
        """
        given = self._settings
        self._listeners = listeners = Listeners(given, self.peer)
        number_own_records_from(given.serials())
        host = Host(
            self._secret,
            listeners.addresses,
            self._refusals,
            self._running.serve_preamble,
            self._priority.matters,
        )
        traversal = self._traversal(host, listeners)
        published = [one for one in listeners.addresses if one.kind in given.published_kinds]
        own = OwnRecord(self._signer, published, given.serials, given.on_key_observed)
        peers = PeerServices(
            host,
            self._dht,
            self._connections,
            self._book,
            own,
            self._refusals,
            self.open_stream,
            traversal.connector,
            self._unreachable,
            min_connections=given.min_connections,
        )
        handlers = {
            **self._handlers,
            PEERS_PROTOCOL: peers.exchange.serve,
            TRAVERSAL_PROTOCOL: traversal.serve,
        }
        for protocol, handler in handlers.items():
            host.serve(protocol, self._server.acceptor(handler))
        host.swarm.register_notifee(self._connections)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._run, host, peers, traversal, listeners)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()

    async def _run(
        self,
        host: Host,
        peers: PeerServices,
        traversal: TraversalServices,
        listeners: Listeners,
        task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run everything until cancelled, in the order in which the parts need each other."""
        bulk = listeners.bulk
        async with listeners.control, bulk or nullcontext(), run_service(host.swarm):
            await host.swarm.event_background_nursery_created.wait()
            async with (
                self._gossip.running(host.basic, self._settings.serials()),
                self._dht.running(host.basic),
                trio.open_nursery() as nursery,
                self._paths.listening(bulk),
            ):
                own = OwnAddresses(self._settings, listeners, host, peers, traversal.monitor.renew)
                self._running.parts = RunningParts(
                    host=host, peers=peers, own=own, traversal=traversal, nursery=nursery
                )
                self._server.nursery = nursery
                nursery.start_soon(self._closer.run)
                if listeners.shared is not None:
                    nursery.start_soon(listeners.shared.run)
                nursery.start_soon(host.listen, listeners.control)
                await nursery.start(traversal.run)
                nursery.start_soon(peers.manager.run)
                nursery.start_soon(self.entries.run)
                if self._settings.mdns:
                    nursery.start_soon(self._lan(listeners).run)
                nursery.start_soon(own.run)
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    self._running.parts = self._server.nursery = None
                    with trio.CancelScope(shield=True):
                        for connection in self._connections.connections():
                            await connection.cut("this node is leaving")

    def _lan(self, listeners: Listeners) -> LanDiscovery:
        wanted = frozenset({self._settings.wanted_run} - {b""})
        return LanDiscovery(
            self.peer,
            listeners.port,
            lambda: self._dht.provided | wanted,
            self.entries.learn_from_lan,
            announces=self._settings.bulk,
        )

    def _connection_ended(self, connection: MeasuredYamux) -> None:
        self._gossip.connection_ended(connection)

    # ---------------------------------------------------------------------------------- this node

    @property
    def peer(self) -> PeerId:
        return self._signer.peer

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

    @property
    def endpoint(self) -> Endpoint:
        hosts, port = self._listeners.bulk_address if self._listeners else ((), 0)
        return Endpoint(
            peer=self.peer,
            hosts=hosts,
            port=port,
            certificate=self._certificate.der,
            reach=self.reach,
        )

    @property
    def reach(self) -> Reachability:
        """Whether others can call this node, as far as its members' calls have shown."""
        return self._running.reach

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

    def keep(self, peers: frozenset[PeerId]) -> None:
        self._priority.keep(peers)

    def source_of(self, peer: PeerId) -> Source:
        return self._priority.source_of(peer)

    def relay_figures(self) -> RelayFigures:
        """What this node relays for others."""
        return self._running.relay_figures()

    # ---------------------------------------------------------------------------------- streams

    async def open_stream(self, peer: PeerId, protocol: str) -> ByteStream:
        stream = await self._running.open_stream(peer, protocol)
        return ControlStream(stream, peer, self._control, self._closer)

    async def open_bulk(self, endpoint: Endpoint, protocol: str) -> ByteStream:
        try:
            stream = await self._paths.open(endpoint, protocol)
        except NoPath:
            self._unreachable.note(endpoint.peer, trio.current_time())
            raise
        self._unreachable.clear(endpoint.peer)
        return stream

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        if protocol in self._handlers or protocol in (PEERS_PROTOCOL, TRAVERSAL_PROTOCOL):
            raise ValueError(f"{protocol} is served already")
        if self._running.parts is not None:
            raise RuntimeError("protocols are served before the network starts")
        self._handlers[protocol] = handler

    def serve_bulk(self, protocol: str, handler: StreamHandler) -> None:
        self._paths.serve(protocol, handler)

    def admit(self, endpoint: Endpoint) -> None:
        self._admitted.admit(endpoint)

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
            control_sent=self._control.sent,
            control_received=self._control.received,
            bulk_sent=self._bulk_traffic.sent,
            bulk_received=self._bulk_traffic.received,
        )

    def refusals(self) -> Mapping[str, int]:
        counts = self._refusals.snapshot()
        counts["busy"] += sum(one.refused_streams for one in self._connections.connections())
        return counts
