"""Gossip in the made-up network: a message floods from node to node along the links, and each node
judges it before passing it on.

It differs from the real one in one way: a node does not send to a neighbour that is bound to have
the message earlier by another path (it could not know). The outcome is the same for a fraction of
the events; the bytes that real duplicates cost are not counted. In a world of many nodes
(`FakeSwarm.floods` off) it differs in more: everybody hears a message at one instant, and nobody is
spared one that others refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable

import trio

from protocol.identity import PeerId

# Messages; ten seconds of a hundred nodes' beacons at their usual pace.
QUEUE_LIMIT = 256


class FakeSubscription:
    """The messages of one topic that were accepted; the oldest go when nobody reads."""

    def __init__(self, accept: Callable[[PeerId, bytes], bool], *, keep: bool = True) -> None:
        self.dropped = 0
        self._keep = keep
        self.accept = accept
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

    What each node knows of it is kept here, so that it goes when the message has gone round.
    """

    __slots__ = ("data", "expected", "origin", "seen", "topic")

    def __init__(self, origin: PeerId, topic: str, data: bytes) -> None:
        self.origin = origin
        self.topic = topic
        self.data = data
        self.seen: set[PeerId] = {origin}
        self.expected: dict[PeerId, float] = {}
