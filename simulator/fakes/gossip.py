"""Gossip among fake nodes: a message floods along the links, and each node judges it first.

It differs from the real network in one way: a node does not send to a neighbour that is bound to
have the message earlier by another path. A real node cannot know that. The outcome is the same with
a fraction of the events, but the bytes that real duplicates cost are not counted.

In a world of many nodes (`FakeSwarm.floods` is False) it differs in more: everybody hears a message
at one instant, even where other nodes refused it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping

import trio

from protocol.identity import PeerId
from simulator.fakes.connection import FakeConnection, TrafficCounter
from simulator.fakes.paths import Paths

# Messages: ten seconds of a hundred nodes' beacons at their usual pace.
QUEUE_LIMIT = 256
# Signature, key, topic and sequence number of a gossip message.
OVERHEAD_BYTES = 150


class FakeSubscription:
    """The accepted messages of one topic. The oldest are dropped when nobody reads."""

    def __init__(self, accept: Callable[[PeerId, bytes], bool], *, keep: bool = True) -> None:
        self.dropped = 0
        self.accept = accept
        self._keep = keep
        self._queue: deque[tuple[PeerId, bytes]] = deque()
        self._readable = trio.lowlevel.ParkingLot()

    def put(self, signer: PeerId, data: bytes) -> None:
        if not self._keep:
            return
        if len(self._queue) == QUEUE_LIMIT:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append((signer, data))
        self._readable.unpark()

    def __aiter__(self) -> AsyncIterator[tuple[PeerId, bytes]]:
        return self

    async def __anext__(self) -> tuple[PeerId, bytes]:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._queue:
            await self._readable.park()
        return self._queue.popleft()


class GossipMessage:
    """One message under way.

    What each node knows of the message is kept here, so that it is freed with the message.
    """

    __slots__ = ("data", "expected", "origin", "seen", "topic")

    def __init__(self, origin: PeerId, topic: str, data: bytes) -> None:
        self.origin = origin
        self.topic = topic
        self.data = data
        self.seen: set[PeerId] = {origin}
        # When the message lands at each peer that it is under way to.
        self.expected: dict[PeerId, float] = {}


class FakeGossip:
    """One node's part in gossip: its subscriptions, and what it passes on."""

    def __init__(
        self,
        peer: PeerId,
        paths: Paths,
        connections: Mapping[PeerId, FakeConnection],
        counter: TrafficCounter,
        gossip_of: Callable[[PeerId], FakeGossip],
    ) -> None:
        self._peer, self._paths, self._connections = peer, paths, connections
        self._counter, self._gossip_of = counter, gossip_of
        self._subscriptions: dict[str, FakeSubscription] = {}

    def subscribe(
        self, topic: str, accept: Callable[[PeerId, bytes], bool], *, keep: bool
    ) -> FakeSubscription:
        """Raises `ValueError` for a second subscription to one topic."""
        if topic in self._subscriptions:
            raise ValueError(f"{topic} must be subscribed to once, before the network starts")
        self._subscriptions[topic] = FakeSubscription(accept, keep=keep)
        return self._subscriptions[topic]

    def pass_on(self, message: GossipMessage, received_from: PeerId = "") -> None:
        """Send a message to every neighbour that subscribes and would not have it earlier."""
        now = trio.current_time()
        size_bytes = len(message.data) + OVERHEAD_BYTES
        seen, expected = message.seen, message.expected
        for peer, connection in self._connections.items():
            if peer == received_from or peer in seen:
                continue
            neighbour = self._gossip_of(peer)
            if message.topic not in neighbour._subscriptions:
                continue
            model = self._paths.link_between(self._peer, peer)
            soonest = expected.get(peer, math.inf)
            if soonest <= now + model.latency_s:
                continue
            if self._paths.is_congested(peer):
                continue
            if model.loss and self._paths.rng.random() < model.loss:
                continue
            self._counter.count_sent(True, len(message.data))
            landing = connection.send(
                connection.side_of(self._peer), size_bytes, neighbour._hear, (message, self._peer)
            )
            if landing < soonest and not connection.cut:
                expected[peer] = landing

    def _hear(self, heard: tuple[GossipMessage, PeerId]) -> None:
        """A message has arrived from a neighbour."""
        message, received_from = heard
        if self._peer in message.seen:
            return
        message.seen.add(self._peer)
        if self._deliver(self._subscriptions[message.topic], message):
            self.pass_on(message, received_from)

    def hear_at_once(self, message: GossipMessage) -> None:
        """A message has arrived in a swarm that does not flood."""
        subscription = self._subscriptions.get(message.topic)
        if subscription is not None:
            self._deliver(subscription, message)

    def _deliver(self, subscription: FakeSubscription, message: GossipMessage) -> bool:
        """Judge a message. Returns whether it was accepted."""
        self._counter.count_received(True, len(message.data))
        accepted = subscription.accept(message.origin, message.data)
        if accepted:
            subscription.put(message.origin, message.data)
        return accepted
