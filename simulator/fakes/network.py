"""`FakeNetwork`: one node's place in a fake swarm, as `ports.Network` promises it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from daemon.network.limits.prefixes import prefix_of
from daemon.network.peers.unreachable import UnreachablePeers
from protocol.errors import Unreachable
from protocol.identity import PeerId, short
from protocol.ports.byte_stream import ByteStream, StreamHandler
from protocol.ports.endpoint import Endpoint
from protocol.ports.network import MAX_GOSSIP_BYTES, Link, LinkChange, RelayUse, Source, Traffic
from simulator.fakes.connection import HEADER_BYTES, FakeConnection, TrafficCounter, is_cut
from simulator.fakes.gossip import FakeGossip, FakeSubscription, GossipMessage
from simulator.fakes.link_changes import FakeLinkChanges
from simulator.fakes.paths import Paths
from simulator.fakes.stream import FakeStream
from simulator.fakes.stream_server import FakeStreamServer

# TCP, then Noise.
DIAL_ROUND_TRIPS = 2
# TCP, then TLS 1.3.
BULK_ROUND_TRIPS = 2
# How long the real network waits for a host that does not answer.
DIAL_TIMEOUT_S = 5.0
# A few hops of Kademlia.
LOOKUP_S = 0.3


class Surroundings(Protocol):
    """What a node's network needs of the swarm around it. `FakeSwarm` provides it."""

    @property
    def paths(self) -> Paths: ...

    @property
    def nodes(self) -> Mapping[PeerId, FakeNetwork]: ...

    @property
    def floods(self) -> bool: ...

    def enter(self, node: FakeNetwork) -> None: ...

    def leave(self, node: FakeNetwork) -> None: ...

    def connect(
        self, here: FakeNetwork, there: FakeNetwork, *, is_link: bool
    ) -> FakeConnection: ...

    def link_up(self, pair: tuple[PeerId, PeerId]) -> None: ...

    def link_missing(self, node: FakeNetwork, peer: PeerId) -> None: ...

    def listener(self, endpoint: Endpoint) -> FakeNetwork | None: ...

    def gossip_to_all(self, message: GossipMessage) -> None: ...

    def provide(self, key: bytes, peer: PeerId) -> None: ...

    def providers(self, key: bytes, peer: PeerId) -> list[PeerId]: ...


class FakeNetwork:
    """One life of a node in the swarm. `FakeSwarm.network` makes it.

    `async with network.running():` is its life. `FakeSwarm.kill` cancels what runs inside.
    """

    def __init__(self, swarm: Surroundings, peer: PeerId, endpoint: Endpoint) -> None:
        self.peer = peer
        self.endpoint = endpoint
        self.addresses = (f"/ip4/{endpoint.hosts[0]}/tcp/4001/p2p/{peer}",)
        self.alive = False
        self.paused = False
        self.connections: dict[PeerId, FakeConnection] = {}
        self.counter = TrafficCounter()
        self.gossip = FakeGossip(
            peer,
            swarm.paths,
            self.connections,
            self.counter,
            lambda other: swarm.nodes[other].gossip,
        )
        self._server = FakeStreamServer(peer, self.refuse)
        self._swarm = swarm
        self._nursery: trio.Nursery | None = None
        self._admitted: dict[PeerId, bytes] = {}
        self._watchers: list[FakeLinkChanges] = []
        self._refusals: Counter[str] = Counter()
        self._kept: frozenset[PeerId] = frozenset()
        self._unreachable = UnreachablePeers()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take part in the swarm while inside. The block is cancelled when the node is killed."""
        async with trio.open_nursery() as nursery:
            self._nursery = self._server.nursery = nursery
            self._swarm.enter(self)
            try:
                yield
            finally:
                self._swarm.leave(self)
                nursery.cancel_scope.cancel()

    # ---------------------------------------------------------------- streams

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        self._server.register(protocol, handler, is_link=True)

    def refuse_protocol(self, protocol: str) -> None:
        """Refuse the streams of a protocol from now on."""
        self._server.unregister(protocol, is_link=True)

    def serve_bulk(self, protocol: str, handler: StreamHandler) -> None:
        self._server.register(protocol, handler, is_link=False)

    async def open_stream(self, peer: PeerId, protocol: str) -> ByteStream:
        await trio.lowlevel.checkpoint_if_cancelled()
        connection = self.connections.get(peer)
        if connection is None:
            await self._dial(self._swarm.nodes.get(peer), peer, DIAL_ROUND_TRIPS)
            self._swarm.link_up((self.peer, peer))
            connection = self.connections.get(peer)
            if connection is None:
                raise Unreachable(f"{short(peer)} cannot be connected")
        return await self._open(connection, protocol)

    async def open_bulk(self, endpoint: Endpoint, protocol: str) -> ByteStream:
        target = self._swarm.listener(endpoint)
        server = await self._dial(target, endpoint.peer, BULK_ROUND_TRIPS)
        if endpoint.certificate != server.endpoint.certificate:
            server.refuse("tls")
            raise Unreachable(
                f"{short(endpoint.peer)} shows another certificate than the known one"
            )
        if not server.admits(self.endpoint):
            raise Unreachable(f"{short(endpoint.peer)} does not know this node's certificate")
        return await self._open(self._swarm.connect(self, server, is_link=False), protocol)

    def admit(self, endpoint: Endpoint) -> None:
        self._admitted[endpoint.peer] = endpoint.certificate

    def admits(self, endpoint: Endpoint) -> bool:
        admitted = self._admitted.get(endpoint.peer) == endpoint.certificate
        if not admitted:
            self.refuse("tls")
        return admitted

    async def _dial(
        self, target: FakeNetwork | None, peer: PeerId, round_trips: int
    ) -> FakeNetwork:
        """Reach the node behind an address, which takes so many round trips.

        Raises:
            Unreachable: When the node is unknown, dead or cut off.
        """
        if target is None:
            raise Unreachable(f"no address of {short(peer)} is known")
        await trio.sleep(round_trips * self._swarm.paths.round_trip_s(self.peer, target.peer))
        if is_cut(self._swarm.paths, self, target):
            await trio.sleep(DIAL_TIMEOUT_S)
        if is_cut(self._swarm.paths, self, target) or not self.alive:
            self._unreachable.note(peer, trio.current_time())
            raise Unreachable(f"{short(peer)} did not answer for {DIAL_TIMEOUT_S:g} s")
        if not target.alive:
            self._unreachable.note(peer, trio.current_time())
            raise Unreachable(f"{short(peer)} refused the connection")
        self._unreachable.clear(peer)
        return target

    async def _open(self, connection: FakeConnection, protocol: str) -> ByteStream:
        side = connection.side_of(self.peer)
        stream = FakeStream(connection, side, protocol)
        connection.send(
            side, HEADER_BYTES + len(protocol), connection.ends[1 - side].accept_stream, stream
        )
        try:
            await stream.wait_accepted()
        except BaseException:
            stream.close()
            raise
        return stream

    def accept_stream(self, opener: FakeStream) -> None:
        """Serve a stream that the other end of a connection opened, or refuse it."""
        self._server.accept(opener)

    # ---------------------------------------------------------------- gossip

    async def publish(self, topic: str, data: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.publish_now(topic, data)

    def publish_now(self, topic: str, data: bytes) -> None:
        """`publish` for a simulation that delays messages on the way out."""
        if len(data) <= MAX_GOSSIP_BYTES and self.alive:
            message = GossipMessage(self.peer, topic, bytes(data))
            if self._swarm.floods:
                self.gossip.pass_on(message)
            else:
                self.counter.count_sent(True, len(data) * len(self.connections))
                self._swarm.gossip_to_all(message)

    def subscribe(
        self, topic: str, accept: Callable[[PeerId, bytes], bool], *, keep: bool = True
    ) -> FakeSubscription:
        if self._nursery is not None:
            raise ValueError(f"{topic} must be subscribed to once, before the network starts")
        return self.gossip.subscribe(topic, accept, keep=keep)

    # ---------------------------------------------------------------- discovery and links

    async def provide(self, key: bytes) -> None:
        await trio.sleep(LOOKUP_S)
        self._swarm.provide(key, self.peer)

    async def find_providers(self, key: bytes) -> list[PeerId]:
        await trio.sleep(LOOKUP_S)
        return self._swarm.providers(key, self.peer)

    def unreachable(self) -> frozenset[PeerId]:
        return self._unreachable.now(trio.current_time())

    def relays(self) -> Mapping[PeerId, RelayUse]:
        """None: no node of a fake swarm is behind a router."""
        return {}

    def keep(self, peers: frozenset[PeerId]) -> None:
        self._kept = peers

    def source_of(self, peer: PeerId) -> Source:
        connection = self.connections.get(peer)
        other = self._swarm.nodes.get(peer) if connection is not None else None
        prefix = prefix_of(other.endpoint.hosts[0]) if other is not None else ""
        return Source(prefix=prefix, matters=peer in self._kept)

    def links(self) -> Sequence[Link]:
        return [
            Link(
                peer=peer,
                path="direct",
                address=self._swarm.nodes[peer].addresses[0],
                rtt_s=self._swarm.paths.round_trip_s(self.peer, peer),
                since_s=connection.since_s,
            )
            for peer, connection in self.connections.items()
        ]

    def changes(self) -> AsyncIterator[LinkChange]:
        watcher = FakeLinkChanges(
            [
                LinkChange(peer=peer, up=True, reason="already connected")
                for peer in self.connections
            ]
        )
        self._watchers.append(watcher)
        return watcher

    def traffic(self) -> Traffic:
        return self.counter.read()

    def refusals(self) -> Mapping[str, int]:
        return dict(self._refusals)

    # ---------------------------------------------------------------- for the swarm and connections

    def refuse(self, reason: str) -> None:
        self._refusals[reason] += 1

    def link_made(self, connection: FakeConnection, peer: PeerId) -> None:
        self.connections[peer] = connection
        self._unreachable.clear(peer)
        self._report(LinkChange(peer=peer, up=True, reason="connected"))

    def link_lost(self, connection: FakeConnection, peer: PeerId, reason: str) -> None:
        if self.connections.get(peer) is connection:
            del self.connections[peer]
            self._report(LinkChange(peer=peer, up=False, reason=reason))
            self._swarm.link_missing(self, peer)

    def _report(self, change: LinkChange) -> None:
        if self.alive:
            for watcher in self._watchers:
                watcher.put(change)

    def stop(self) -> None:
        """End what runs inside `running`."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
