"""`Network` on the real internet: composes host, gossip, DHT, peer manager and bulk plane, and
lives from `running()`'s entry to its exit.
"""

from __future__ import annotations

import errno
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext

import msgspec
import trio

from daemon.network.addresses import PeerAddress, advertised_hosts, parse_peer_address
from daemon.network.error_boundary import Refusals
from daemon.network.graceful_close import BackgroundCloser
from daemon.network.libp2p.control_stream import ControlStream, ControlTraffic
from daemon.network.libp2p.dht import Dht
from daemon.network.libp2p.gossip import Gossip, TopicSubscription
from daemon.network.libp2p.host import Host, number_own_records_from
from daemon.network.libp2p.service_manager import run_service
from daemon.network.libp2p.stream_server import StreamServer
from daemon.network.limits.prefixes import prefix_of
from daemon.network.paths.direct import BulkPlane, bind
from daemon.network.paths.selector import LET_IN, OVER_LIBP2P, NoPath, PathSelector, let_in
from daemon.network.peers.address_book import AddressBook
from daemon.network.peers.dial_targets import DialTargets
from daemon.network.peers.live_connections import LiveConnections
from daemon.network.peers.manager import PEERS_PROTOCOL, PeerManager
from daemon.network.peers.own_record import KeyObservation, OwnRecord
from daemon.network.port_holder import port_holder
from daemon.network.tls.certificate import BulkCertificate
from daemon.system.trio_types import TaskStatus
from protocol.errors import PeerFault, Unreachable, UserError
from protocol.identity import PeerId, Signer
from protocol.ports.byte_stream import ByteStream, StreamHandler
from protocol.ports.endpoint import MAX_HOSTS, Endpoint
from protocol.ports.network import Link, LinkChange, Source, Traffic


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Port 0 is any free one, `usual_port` where that is free.

    `advertise` holds hosts; empty, they are worked out. Without `bulk` (an observer) nothing
    listens for it. `serials` gives numbers that grow, also from one life of this node's key to the
    next. `sighting` is called with each record of this key that somebody else signed.
    """

    listen_host: str = "0.0.0.0"
    listen_port: int = 0
    usual_port: int = 0
    bulk_port: int = 0
    join: tuple[str, ...] = ()
    advertise: tuple[str, ...] = ()
    min_connections: int = 8
    bulk: bool = True
    serials: Callable[[], int] = time.time_ns
    sighting: Callable[[KeyObservation], None] = lambda _sighting: None


class LibP2PNetwork:
    """A `protocol.ports.network.Network`.

    The constructor opens nothing; `serve`, `serve_bulk` and `subscribe` come before `running()`.
    """

    def __init__(
        self, settings: NetworkSettings, secret: bytes, certificate: BulkCertificate
    ) -> None:
        """`secret` is the 32-byte Ed25519 seed.

        Raises `UserError("JOIN")` for a join address that is none, `UserError("KEY_LOG")` where
        there can be no bulk stream.
        """
        self._settings = settings
        self._secret = secret
        self._signer = Signer(secret)
        self._certificate = certificate
        self._join = tuple(_join_place(address) for address in settings.join)
        self._refusals = Refusals()
        self._control = ControlTraffic()
        self._endings = BackgroundCloser()
        self._kept: frozenset[PeerId] = frozenset()
        self._server = StreamServer(self._refusals, self._control, self._endings, self._matters)
        self._bulk = BulkPlane(
            certificate, self._refusals, self._endings, self._server.run_handler, self._matters
        )
        self._paths = PathSelector(self._open_direct, self._open_over_libp2p)
        self._gossip = Gossip(
            self.peer,
            self._refusals,
            self._control,
            self._crash,
            self._is_known,
            self._prefix_of,
            self._matters,
        )
        self._links = LiveConnections(self._gossip.connection_ended)
        self._book = AddressBook(self.peer, self._join)
        self._dht = Dht(self._learn, self._connect_at, self._matters, self._prefix_of)
        self._handlers: dict[str, StreamHandler] = {}
        self._places: tuple[PeerAddress, ...] = ()
        self._bulk_port = 0
        self._lost_port = 0
        self._host: Host | None = None
        self._manager: PeerManager | None = None
        self._reach: DialTargets | None = None
        self._nursery: trio.Nursery | None = None

    # ------------------------------------------------------------------------------------------------ life

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listening and joining inside the block.

        Raises `UserError("PORT")` when a port is taken.
        """
        given = self._settings
        control = _listen(given.listen_host, given.listen_port, given.usual_port)
        bulk = (
            _listen(self._settings.listen_host, self._settings.bulk_port)
            if self._settings.bulk
            else None
        )
        hosts = advertised_hosts(self._settings.listen_host, self._settings.advertise)
        port = control.socket.getsockname()[1]
        self._lost_port = (
            given.usual_port if given.usual_port not in (0, port) and not given.listen_port else 0
        )
        self._places = tuple(
            PeerAddress("ip4" if _is_ip(host) else "dns4", host, port, self.peer) for host in hosts
        )
        self._bulk_port = bulk.socket.getsockname()[1] if bulk else 0
        number_own_records_from(self._settings.serials())
        host = Host(self._secret, self._places, self._refusals, self._matters)
        reach = self._reach = DialTargets(self._book, self._links, self._places)
        manager = PeerManager(
            host,
            self._dht,
            self._links,
            self._book,
            reach,
            own=OwnRecord(
                self._signer, self._places, self._settings.serials, self._settings.sighting
            ),
            min_connections=self._settings.min_connections,
            refusals=self._refusals,
            open_stream=self.open_stream,
        )
        for protocol, handler in {**self._handlers, PEERS_PROTOCOL: manager.serve}.items():
            host.serve(protocol, self._server.taker(handler))
        host.swarm.register_notifee(self._links)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._live, host, manager, control, bulk)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()

    async def _live(
        self,
        host: Host,
        manager: PeerManager,
        control: trio.SocketListener,
        bulk: trio.SocketListener | None,
        task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Everything that runs, in the order in which it depends on each other; until cancelled."""
        async with control, bulk or nullcontext(), run_service(host.swarm):
            await host.swarm.event_background_nursery_created.wait()
            async with (
                self._gossip.running(host.basic, self._settings.serials()),
                self._dht.running(host.basic),
                trio.open_nursery() as nursery,
            ):
                self._host = host
                self._manager = manager
                self._nursery = nursery
                self._server.nursery = nursery
                nursery.start_soon(self._endings.run)
                nursery.start_soon(host.listen, control)
                if bulk:
                    nursery.start_soon(self._bulk.listen, [bulk])
                nursery.start_soon(manager.run)
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    self._host = self._manager = self._nursery = self._server.nursery = None
                    await self._cut_connections()  # nobody waits for a goodbye

    async def _cut_connections(self) -> None:
        with trio.CancelScope(shield=True):
            await self._bulk.cut()
            for connection in self._links.connections():
                await connection.cut("we are leaving")

    def _crash(self, error: BaseException) -> None:
        """Our own code failed where the library would hide it: the whole network ends with it."""

        async def fail() -> None:
            raise error

        if self._nursery is not None:
            self._nursery.start_soon(fail)

    # ------------------------------------------------------------------------------------------------ who and where we are

    @property
    def peer(self) -> PeerId:
        return self._signer.peer

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(str(place) for place in self._places)

    @property
    def port(self) -> int:
        """On which others call; 0 before it listens."""
        return self._places[0].port if self._places else 0

    @property
    def lost_port(self) -> int:
        """The port on which others called before, where another program has it now; else 0."""
        return self._lost_port

    def members(self) -> tuple[str, ...]:
        """Multiaddrs of other members of what this node provides, who were connected a while ago;
        those connected now come first.
        """
        return tuple(
            map(
                str,
                self._book.places_of_members(
                    self._links.peers(), self._dht.provided, trio.current_time()
                ),
            )
        )

    @property
    def endpoint(self) -> Endpoint:
        hosts = tuple(place.host for place in self._places)[:MAX_HOSTS] if self._bulk_port else ()
        return Endpoint(
            peer=self.peer, hosts=hosts, port=self._bulk_port, certificate=self._certificate.der
        )

    # ------------------------------------------------------------------------------------------------ who matters

    def keep(self, peers: frozenset[PeerId]) -> None:
        self._kept = peers

    def _matters(self, peer: PeerId) -> bool:
        """Whose connections, announcements and messages never make room for a stranger's."""
        return peer in self._kept or self._book.is_named(peer)

    def source_of(self, peer: PeerId) -> Source:
        return Source(prefix=self._prefix_of(peer), matters=self._matters(peer))

    def _is_known(self, peer: PeerId) -> bool:
        return peer in self._links or self._matters(peer)

    def _prefix_of(self, peer: PeerId) -> str:
        return prefix_of(next(iter(self._links.hosts_of(peer)), ""))

    # ------------------------------------------------------------------------------------------------ streams

    async def open_stream(self, peer: PeerId, protocol: str) -> ByteStream:
        host, manager = self._host, self._manager
        if host is None or manager is None:
            raise Unreachable("the network is not running")
        await manager.connect(peer)
        stream = await host.open_stream(peer, protocol)
        return ControlStream(stream, peer, self._control, self._endings)

    async def _open_over_libp2p(self, peer: PeerId, protocol: str) -> ByteStream:
        stream = await self.open_stream(peer, protocol + OVER_LIBP2P)
        await let_in(stream)
        return stream

    async def _open_direct(self, endpoint: Endpoint, protocol: str) -> ByteStream:
        reach = self._reach
        hosts = reach.bulk_hosts(endpoint) if reach is not None else ()
        if reach is None or not hosts:
            raise NoPath(f"no address of {endpoint.peer} may be called for bulk streams")
        stream = await self._bulk.open(msgspec.structs.replace(endpoint, hosts=hosts), protocol)
        reach.bulk_met(endpoint.peer, stream.host)
        return stream

    async def _connect_at(self, peer: PeerId, places: list[PeerAddress]) -> None:
        """Connect to a peer that the DHT named. Raises `Unreachable`."""
        if self._manager is None:
            raise Unreachable("the network is not running")
        self._manager.learn(places)
        await self._manager.connect(peer)

    async def open_bulk(self, endpoint: Endpoint, protocol: str) -> ByteStream:
        return await self._paths.open(endpoint, protocol)

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        if protocol in self._handlers or protocol == PEERS_PROTOCOL:
            raise ValueError(f"{protocol} is served already")
        if self._host is not None:
            raise RuntimeError("protocols are served before the network starts")
        self._handlers[protocol] = handler

    def serve_bulk(self, protocol: str, handler: StreamHandler) -> None:
        async def take_direct(stream: ByteStream) -> None:
            self._paths.came(stream.peer, direct=True)
            await handler(stream)

        async def take_over_libp2p(stream: ByteStream) -> None:
            if not self._bulk.is_admitted(stream.peer):
                raise PeerFault(
                    "tls", "a bulk stream over libp2p from somebody whose endpoint was not admitted"
                )
            await stream.send_all(LET_IN)
            self._paths.came(stream.peer, direct=False)
            await handler(stream)

        self._bulk.serve(protocol, take_direct)
        self.serve(protocol + OVER_LIBP2P, take_over_libp2p)

    def admit(self, endpoint: Endpoint) -> None:
        self._bulk.admit(endpoint)

    # ------------------------------------------------------------------------------------------------ gossip and discovery

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

    def _learn(self, places: list[PeerAddress]) -> None:
        if self._manager is not None:
            self._manager.learn(places)

    # ------------------------------------------------------------------------------------------------ what is measured

    def links(self) -> Sequence[Link]:
        return [self._measured(link) for link in self._links.all()]

    def _measured(self, link: Link) -> Link:
        counted = self._links.segments(link.peer) + self._bulk.segments(link.peer)
        path = "stream" if self._paths.by_stream(link.peer) else link.path
        return msgspec.structs.replace(
            link, path=path, segments=counted.sent, retransmits=counted.again
        )

    def changes(self) -> AsyncIterator[LinkChange]:
        return self._links.changes()

    def traffic(self) -> Traffic:
        return Traffic(
            control_sent=self._control.sent,
            control_received=self._control.received,
            bulk_sent=self._bulk.traffic.sent,
            bulk_received=self._bulk.traffic.received,
        )

    def refusals(self) -> Mapping[str, int]:
        counts = self._refusals.snapshot()
        counts["busy"] += sum(
            connection.refused_streams for connection in self._links.connections()
        )
        return counts


def _join_place(address: str) -> PeerAddress:
    try:
        return parse_peer_address(address)
    except PeerFault as fault:
        raise UserError(
            "JOIN",
            f"{address!r} is not an address to join.",
            why=str(fault),
            fix="copy it from the other node's Ready line; it looks like /ip4/203.0.113.7/tcp/4001/p2p/12D3KooW...",
            exit_code=2,
        ) from None


_PORT_TAKEN = "stop the program that has this port, or choose another one: --port PORT (0: the system picks one)"
_PORT_FIXES = {
    errno.EADDRNOTAVAIL: "set listen_host under [network] to an address of this machine; 0.0.0.0 is every one",
    errno.EACCES: "ports below 1024 belong to root; choose a higher one: --port PORT (0: the system picks one)",
}


def _listen(host: str, port: int, usual: int = 0) -> trio.SocketListener:
    if port == 0 and usual:
        try:
            return bind(host, usual)
        except OSError:
            # Another program has it now: any other will do, and `lost_port` says so.
            pass
    try:
        return bind(host, port)
    except (OSError, OverflowError) as error:
        holder = port_holder(port)
        raise UserError(
            "PORT",
            f"Cannot listen on {host} port {port}.",
            why=f"{holder} listens there" if holder else str(error),
            fix=_PORT_FIXES.get(getattr(error, "errno", None), _PORT_TAKEN),
        ) from None


def _is_ip(host: str) -> bool:
    return host.replace(".", "").isdigit()
