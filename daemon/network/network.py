"""The real `Network` port: composes the libp2p host, gossip, DHT, peer manager and bulk paths.

Everything that needs a socket lives between the entry and the exit of `running()`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext

import msgspec
import trio

from daemon.network.addresses import PeerAddress, advertised_hosts, parse_join_address
from daemon.network.byte_counter import ByteCounter
from daemon.network.error_boundary import Refusals
from daemon.network.graceful_close import BackgroundCloser
from daemon.network.libp2p.control_stream import ControlStream
from daemon.network.libp2p.dht import Dht
from daemon.network.libp2p.gossip import Gossip
from daemon.network.libp2p.host import Host
from daemon.network.libp2p.library_settings import number_own_records_from
from daemon.network.libp2p.service_manager import run_service
from daemon.network.libp2p.stream_server import StreamServer
from daemon.network.libp2p.topic_subscription import TopicSubscription
from daemon.network.limits.prefixes import prefix_of
from daemon.network.paths.admission import AdmittedPeers
from daemon.network.paths.path import Path, TransportContext
from daemon.network.paths.selector import PathSelector, make_transports
from daemon.network.peers.address_book import AddressBook
from daemon.network.peers.change_signal import ChangeSignal
from daemon.network.peers.dial_targets import DialTargets
from daemon.network.peers.exchange import PEERS_PROTOCOL, RecordExchange
from daemon.network.peers.live_connections import LiveConnections
from daemon.network.peers.manager import PeerManager
from daemon.network.peers.own_record import OwnRecord
from daemon.network.settings import NetworkSettings
from daemon.network.tcp import listen
from daemon.network.tls.certificate import BulkCertificate
from daemon.system.trio_types import TaskStatus
from protocol.errors import Unreachable
from protocol.identity import PeerId, Signer
from protocol.ports.byte_stream import ByteStream, StreamHandler
from protocol.ports.endpoint import MAX_HOSTS, Endpoint
from protocol.ports.network import Link, LinkChange, Source, Traffic


class _Running(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that exist only while the network runs."""

    host: Host
    manager: PeerManager
    targets: DialTargets
    nursery: trio.Nursery


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
        self._kept: frozenset[PeerId] = frozenset()
        self._book = AddressBook(self.peer, map(parse_join_address, settings.join))
        self._server = StreamServer(self._refusals, self._control, self._closer, self._matters)
        self._gossip = Gossip(
            self.peer,
            self._refusals,
            self._control,
            self._crash,
            self._is_known,
            self._prefix_of,
            self._matters,
        )
        self._connections = LiveConnections(self._gossip.connection_ended)
        self._dht = Dht(self._learn, self._connect_at, self._matters, self._prefix_of)
        self._handlers: dict[str, StreamHandler] = {}
        self._admitted = AdmittedPeers(self._matters)
        self._paths = PathSelector(make_transports(self._transport_context()))
        self._addresses: tuple[PeerAddress, ...] = ()
        self._bulk_port = 0
        self._lost_port = 0
        self._running: _Running | None = None

    def _transport_context(self) -> TransportContext:
        return TransportContext(
            certificate=self._certificate,
            admitted=self._admitted,
            refusals=self._refusals,
            closer=self._closer,
            traffic=self._bulk_traffic,
            run_handler=self._server.run_handler,
            hosts_of=self._bulk_hosts,
            on_met=self._met_for_bulk,
            open_stream=self.open_stream,
            serve_stream=self.serve,
        )

    # ---------------------------------------------------------------------------------- life

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen and join inside the block.

        Raises:
            UserError: "PORT" when a port cannot be used.
        """
        given = self._settings
        control = listen(given.listen_host, given.listen_port, given.usual_port)
        bulk = listen(given.listen_host, given.bulk_port) if given.bulk else None
        self._note_own_addresses(control, bulk)
        number_own_records_from(given.serials())
        host = Host(self._secret, self._addresses, self._refusals, self._matters)
        targets = DialTargets(self._book, self._connections, self._addresses)
        changed = ChangeSignal()
        exchange = RecordExchange(
            self._book,
            self._connections,
            self._dht,
            OwnRecord(self._signer, self._addresses, given.serials, given.on_key_observed),
            self._refusals,
            self.open_stream,
            changed,
        )
        manager = PeerManager(
            host,
            self._dht,
            self._connections,
            self._book,
            targets,
            exchange,
            changed,
            min_connections=given.min_connections,
        )
        for protocol, handler in {**self._handlers, PEERS_PROTOCOL: exchange.serve}.items():
            host.serve(protocol, self._server.acceptor(handler))
        host.swarm.register_notifee(self._connections)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._run, host, manager, targets, control, bulk)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()

    def _note_own_addresses(
        self, control: trio.SocketListener, bulk: trio.SocketListener | None
    ) -> None:
        given = self._settings
        port = control.socket.getsockname()[1]
        wanted_another = given.usual_port not in (0, port) and not given.listen_port
        self._lost_port = given.usual_port if wanted_another else 0
        self._addresses = tuple(
            PeerAddress.of_host(host, port, self.peer)
            for host in advertised_hosts(given.listen_host, given.advertise)
        )
        self._bulk_port = bulk.socket.getsockname()[1] if bulk else 0

    async def _run(
        self,
        host: Host,
        manager: PeerManager,
        targets: DialTargets,
        control: trio.SocketListener,
        bulk: trio.SocketListener | None,
        task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run everything until cancelled, in the order in which the parts need each other."""
        async with control, bulk or nullcontext(), run_service(host.swarm):
            await host.swarm.event_background_nursery_created.wait()
            async with (
                self._gossip.running(host.basic, self._settings.serials()),
                self._dht.running(host.basic),
                trio.open_nursery() as nursery,
                self._paths.listening(bulk),
            ):
                self._running = _Running(
                    host=host, manager=manager, targets=targets, nursery=nursery
                )
                self._server.nursery = nursery
                nursery.start_soon(self._closer.run)
                nursery.start_soon(host.listen, control)
                nursery.start_soon(manager.run)
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    self._running = self._server.nursery = None
                    with trio.CancelScope(shield=True):
                        for connection in self._connections.connections():
                            await connection.cut("this node is leaving")

    def _crash(self, error: BaseException) -> None:
        """End the whole network with an error of our own that the library would hide."""

        async def fail() -> None:
            raise error

        if self._running is not None:
            self._running.nursery.start_soon(fail)

    # ---------------------------------------------------------------------------------- this node

    @property
    def peer(self) -> PeerId:
        return self._signer.peer

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(map(str, self._addresses))

    @property
    def port(self) -> int:
        """The port on which others call; 0 before the network listens."""
        return self._addresses[0].port if self._addresses else 0

    @property
    def lost_port(self) -> int:
        """The port of the last run of this node, where another program has it now; else 0."""
        return self._lost_port

    @property
    def endpoint(self) -> Endpoint:
        hosts = tuple(one.host for one in self._addresses)[:MAX_HOSTS] if self._bulk_port else ()
        return Endpoint(
            peer=self.peer, hosts=hosts, port=self._bulk_port, certificate=self._certificate.der
        )

    def members(self) -> tuple[str, ...]:
        """Multiaddrs of other members of what this node provides, connected now or a while ago.

        Members that are connected now come first.
        """
        known = self._book.addresses_of_members(
            self._connections.peers(), self._dht.provided, trio.current_time()
        )
        return tuple(map(str, known))

    # ---------------------------------------------------------------------------------- who matters

    def keep(self, peers: frozenset[PeerId]) -> None:
        self._kept = peers

    def _matters(self, peer: PeerId) -> bool:
        """Whether this peer never makes room for a stranger."""
        return peer in self._kept or self._book.is_named(peer)

    def source_of(self, peer: PeerId) -> Source:
        return Source(prefix=self._prefix_of(peer), matters=self._matters(peer))

    def _is_known(self, peer: PeerId) -> bool:
        return peer in self._connections or self._matters(peer)

    def _prefix_of(self, peer: PeerId) -> str:
        return prefix_of(self._connections.host_of(peer))

    # ---------------------------------------------------------------------------------- streams

    async def open_stream(self, peer: PeerId, protocol: str) -> ByteStream:
        running = self._running
        if running is None:
            raise Unreachable("the network is not running")
        await running.manager.connect(peer)
        stream = await running.host.open_stream(peer, protocol)
        return ControlStream(stream, peer, self._control, self._closer)

    async def open_bulk(self, endpoint: Endpoint, protocol: str) -> ByteStream:
        return await self._paths.open(endpoint, protocol)

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        if protocol in self._handlers or protocol == PEERS_PROTOCOL:
            raise ValueError(f"{protocol} is served already")
        if self._running is not None:
            raise RuntimeError("protocols are served before the network starts")
        self._handlers[protocol] = handler

    def serve_bulk(self, protocol: str, handler: StreamHandler) -> None:
        self._paths.serve(protocol, handler)

    def admit(self, endpoint: Endpoint) -> None:
        self._admitted.admit(endpoint)

    def _bulk_hosts(self, endpoint: Endpoint) -> tuple[str, ...]:
        return self._running.targets.bulk_hosts(endpoint) if self._running is not None else ()

    def _met_for_bulk(self, peer: PeerId, host: str) -> None:
        if self._running is not None:
            self._running.targets.met_for_bulk(peer, host)

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

    def _learn(self, addresses: list[PeerAddress]) -> None:
        if self._running is not None:
            self._running.manager.learn(addresses)

    async def _connect_at(self, peer: PeerId, addresses: list[PeerAddress]) -> None:
        """Connect to a peer that the DHT named. Raises `Unreachable`."""
        if self._running is None:
            raise Unreachable("the network is not running")
        self._running.manager.learn(addresses)
        await self._running.manager.connect(peer)

    # ---------------------------------------------------------------------------------- measured

    def path_to(self, peer: PeerId) -> Path:
        """How bulk bytes to and from `peer` travel now, and why."""
        return self._paths.path_to(peer)

    def links(self) -> Sequence[Link]:
        return [self._measured(link) for link in self._connections.links()]

    def _measured(self, link: Link) -> Link:
        path = self._paths.path_to(link.peer)
        counted = self._connections.segments(link.peer) + path.segments
        return msgspec.structs.replace(
            link, path=path.kind, segments=counted.sent, retransmits=counted.retransmits
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
