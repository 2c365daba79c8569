"""`FakeNetwork`: one node's place in a made-up swarm, as `ports.Network` promises it."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from daemon.network.limits.prefixes import prefix_of
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId, short
from protocol.ports.byte_stream import ByteStream, StreamHandler
from protocol.ports.endpoint import Endpoint
from protocol.ports.network import (
    MAX_GOSSIP_BYTES,
    MAX_STREAMS_PER_PEER,
    Link,
    LinkChange,
    Source,
    Traffic,
)
from simulator.fakes.gossip import FakeSubscription, GossipMessage
from simulator.fakes.wire import HEADER_BYTES, FakeConnection, FakeStream

if TYPE_CHECKING:
    from simulator.fakes.swarm import FakeSwarm

DIAL_ROUND_TRIPS = 2  # TCP, then Noise
BULK_ROUND_TRIPS = 2  # TCP, then TLS 1.3
# What the real network waits for a host that does not answer.
DIAL_TIMEOUT_S = 5.0
LOOKUP_S = 0.3  # a few hops of Kademlia
# Signature, key, topic and sequence number of a gossip message.
GOSSIP_OVERHEAD_BYTES = 150


class FakeChanges:
    """Link changes for one reader.

    Unbounded, but a node reads its own, and there is one for each connection made or lost.
    """

    def __init__(self, first: Sequence[LinkChange]) -> None:
        self._queue = deque(first)
        self._readable = trio.lowlevel.ParkingLot()

    def put(self, change: LinkChange) -> None:
        self._queue.append(change)
        self._readable.unpark()

    def __aiter__(self) -> AsyncIterator[LinkChange]:
        return self

    async def __anext__(self) -> LinkChange:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._queue:
            await self._readable.park()
        return self._queue.popleft()


class FakeNetwork:
    """Made by `FakeSwarm.network`.

    `async with network.running():` is its life; `FakeSwarm.kill` cancels what runs inside.
    """

    def __init__(self, swarm: FakeSwarm, peer: PeerId, endpoint: Endpoint) -> None:
        self.peer = peer
        self.endpoint = endpoint
        self.addresses = (f"/ip4/{endpoint.hosts[0]}/tcp/4001/p2p/{peer}",)
        self.alive = False
        self.paused = False
        self.wires: dict[PeerId, FakeConnection] = {}
        self._swarm = swarm
        self._nursery: trio.Nursery | None = None
        self._handlers: dict[str, StreamHandler] = {}
        self._bulk_handlers: dict[str, StreamHandler] = {}
        self._subscriptions: dict[str, FakeSubscription] = {}
        self._admitted: dict[PeerId, bytes] = {}
        self._serving: Counter[tuple[PeerId, bool]] = Counter()
        self._watchers: list[FakeChanges] = []
        self._refusals: Counter[str] = Counter()
        self._kept: frozenset[PeerId] = frozenset()
        self._moved = [0, 0, 0, 0]  # as in Traffic

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """In the swarm while inside.

        Ends by itself, cancelling its inside, when the node is killed.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._swarm.enter(self)
            try:
                yield
            finally:
                self._swarm.leave(self)
                nursery.cancel_scope.cancel()

    # ------------------------------------------------------------------------------------------ streams

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        self._register(self._handlers, protocol, handler)

    def serve_bulk(self, protocol: str, handler: StreamHandler) -> None:
        self._register(self._bulk_handlers, protocol, handler)

    def _register(
        self, handlers: dict[str, StreamHandler], protocol: str, handler: StreamHandler
    ) -> None:
        if self._nursery is not None or protocol in handlers:
            raise ValueError(f"{protocol} must be registered once, before the network starts")
        handlers[protocol] = handler

    async def open_stream(self, peer: PeerId, protocol: str) -> ByteStream:
        await trio.lowlevel.checkpoint_if_cancelled()
        wire = self.wires.get(peer)
        if wire is None:
            await self._dial(self._swarm.nodes.get(peer), peer, DIAL_ROUND_TRIPS)
            self._swarm.link_up((self.peer, peer))
            wire = self.wires.get(peer)
            if wire is None:
                raise Unreachable(f"{short(peer)} cannot be connected")
        return await self._open(wire, protocol)

    async def open_bulk(self, endpoint: Endpoint, protocol: str) -> ByteStream:
        target = self._swarm.listener(endpoint)
        server = await self._dial(target, endpoint.peer, BULK_ROUND_TRIPS)
        if endpoint.certificate != server.endpoint.certificate:
            server.refuse("tls")
            raise Unreachable(
                f"{short(endpoint.peer)} shows another certificate than the one we know"
            )
        if not server.admits(self.endpoint):
            raise Unreachable(f"{short(endpoint.peer)} does not know our certificate")
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
        """The node behind an address, after so many round trips."""
        if target is None:
            raise Unreachable(f"no address of {short(peer)} is known")
        await trio.sleep(round_trips * self._swarm.round_trip(self, target))
        if self._swarm.is_cut(self, target):
            await trio.sleep(DIAL_TIMEOUT_S)
        if self._swarm.is_cut(self, target) or not self.alive:
            raise Unreachable(f"{short(peer)} did not answer for {DIAL_TIMEOUT_S:g} s")
        if not target.alive:
            raise Unreachable(f"{short(peer)} refused the connection")
        return target

    async def _open(self, wire: FakeConnection, protocol: str) -> ByteStream:
        side = wire.ends.index(self)
        stream = FakeStream(wire, side, protocol)
        wire.send(side, HEADER_BYTES + len(protocol), wire.ends[1 - side].take_stream, stream)
        try:
            await stream.wait_accepted()
        except BaseException:
            stream.close()
            raise
        return stream

    def take_stream(self, opener: FakeStream) -> None:
        """A stream from the other side of one of our wires has arrived."""
        wire, side = opener.wire, 1 - opener.side
        if opener.closed:
            wire.retire_unused(side)
            return  # given up on the way
        source = wire.ends[opener.side].peer
        handler = (self._handlers if wire.is_link else self._bulk_handlers).get(opener.protocol)
        plane = (source, wire.is_link)
        if handler is None or self._serving[plane] >= MAX_STREAMS_PER_PEER or self._nursery is None:
            self.refuse("unknown_kind" if handler is None else "busy")
            wire.send(
                side,
                HEADER_BYTES,
                opener.break_off,
                f"{short(self.peer)} refused a stream of {opener.protocol}",
            )
            wire.retire_unused(side)
            return
        stream = FakeStream(wire, side, opener.protocol)
        stream.other, opener.other = opener, stream
        wire.send(side, HEADER_BYTES, opener.accept, None)
        self._serving[plane] += 1
        self._nursery.start_soon(self._handle, handler, stream, plane)

    async def _handle(
        self, handler: StreamHandler, stream: FakeStream, plane: tuple[PeerId, bool]
    ) -> None:
        try:
            await handler(stream)
        except PeerFault as fault:
            self.refuse(fault.reason)
            stream.reset(f"{short(self.peer)} refused what was sent: {fault.reason}")
        except Unreachable as error:
            stream.reset(str(error))
        finally:
            stream.close()
            self._serving[plane] -= 1
            if not self._serving[plane]:
                del self._serving[plane]

    # ------------------------------------------------------------------------------------------ gossip

    async def publish(self, topic: str, data: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.publish_now(topic, data)

    def publish_now(self, topic: str, data: bytes) -> None:
        """`publish`, for what a simulation holds up on the way out."""
        if len(data) <= MAX_GOSSIP_BYTES and self.alive:
            rumour = GossipMessage(self.peer, topic, bytes(data))
            if self._swarm.floods:
                self._pass_on(rumour, brought_by="")
            else:
                self.count_sent(True, len(data) * len(self.wires))
                self._swarm.tell_everybody(rumour)

    def subscribe(
        self, topic: str, accept: Callable[[PeerId, bytes], bool], *, keep: bool = True
    ) -> FakeSubscription:
        if self._nursery is not None or topic in self._subscriptions:
            raise ValueError(f"{topic} must be subscribed to once, before the network starts")
        self._subscriptions[topic] = FakeSubscription(accept, keep=keep)
        return self._subscriptions[topic]

    def _pass_on(self, rumour: GossipMessage, brought_by: PeerId) -> None:
        now = trio.current_time()
        size = len(rumour.data) + GOSSIP_OVERHEAD_BYTES
        swarm, seen, expected = self._swarm, rumour.seen, rumour.expected
        for peer, wire in self.wires.items():
            if peer == brought_by or peer in seen:
                continue
            other = swarm.nodes[peer]
            if rumour.topic not in other._subscriptions:
                continue
            model = swarm.link_between(self.peer, peer)
            soonest = expected.get(peer, math.inf)
            if soonest <= now + model.latency_s:
                continue
            if model.loss and swarm.rng.random() < model.loss:
                continue
            self.count_sent(True, len(rumour.data))
            landing = wire.send(wire.ends.index(self), size, other.hear, (rumour, self.peer))
            if landing < soonest and not wire.cut:
                expected[peer] = landing

    def hear(self, heard: tuple[GossipMessage, PeerId]) -> None:
        """A message has arrived from a neighbour."""
        rumour, brought_by = heard
        if self.peer in rumour.seen:
            return
        rumour.seen.add(self.peer)
        self.count_received(True, len(rumour.data))
        subscription = self._subscriptions[rumour.topic]
        if subscription.accept(rumour.origin, rumour.data):
            subscription.put(rumour.origin, rumour.data)
            self._pass_on(rumour, brought_by)

    def hear_at_once(self, rumour: GossipMessage) -> None:
        """A message has arrived in a swarm that does not flood."""
        subscription = self._subscriptions.get(rumour.topic)
        if subscription is not None:
            self.count_received(True, len(rumour.data))
            if subscription.accept(rumour.origin, rumour.data):
                subscription.put(rumour.origin, rumour.data)

    # ------------------------------------------------------------------------------------------ finding and watching

    async def provide(self, key: bytes) -> None:
        await trio.sleep(LOOKUP_S)
        self._swarm.provide(key, self.peer)

    async def find_providers(self, key: bytes) -> list[PeerId]:
        await trio.sleep(LOOKUP_S)
        return self._swarm.providers(key, self)

    def keep(self, peers: frozenset[PeerId]) -> None:
        self._kept = peers

    def source_of(self, peer: PeerId) -> Source:
        wire = self.wires.get(peer)
        other = self._swarm.nodes.get(peer) if wire is not None else None
        prefix = prefix_of(other.endpoint.hosts[0]) if other is not None else ""
        return Source(prefix=prefix, matters=peer in self._kept)

    def links(self) -> Sequence[Link]:
        return [
            Link(
                peer=peer,
                path="direct",
                address=self._swarm.nodes[peer].addresses[0],
                rtt_s=self._swarm.round_trip(self, self._swarm.nodes[peer]),
                since_s=wire.since_s,
            )
            for peer, wire in self.wires.items()
        ]

    def changes(self) -> AsyncIterator[LinkChange]:
        watcher = FakeChanges(
            [LinkChange(peer=peer, up=True, reason="connected before") for peer in self.wires]
        )
        self._watchers.append(watcher)
        return watcher

    def traffic(self) -> Traffic:
        control_sent, control_received, bulk_sent, bulk_received = self._moved
        return Traffic(
            control_sent=control_sent,
            control_received=control_received,
            bulk_sent=bulk_sent,
            bulk_received=bulk_received,
        )

    def refusals(self) -> Mapping[str, int]:
        return dict(self._refusals)

    # ------------------------------------------------------------------------------------------ called by swarm and wires

    def refuse(self, reason: str) -> None:
        self._refusals[reason] += 1

    def count_sent(self, control: bool, size: int) -> None:
        self._moved[0 if control else 2] += size

    def count_received(self, control: bool, size: int) -> None:
        self._moved[1 if control else 3] += size

    def link_made(self, wire: FakeConnection, peer: PeerId) -> None:
        self.wires[peer] = wire
        self._tell(LinkChange(peer=peer, up=True, reason="connected"))

    def link_lost(self, wire: FakeConnection, peer: PeerId, reason: str) -> None:
        if self.wires.get(peer) is wire:
            del self.wires[peer]
            self._tell(LinkChange(peer=peer, up=False, reason=reason))
            self._swarm.link_missing(self, peer)

    def _tell(self, change: LinkChange) -> None:
        if self.alive:
            for watcher in self._watchers:
                watcher.put(change)

    def stop(self) -> None:
        """End what runs inside `running`."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
