"""Gossip: GossipSub over the host's connections, messages signed by their origin, judged before
they are passed on.

Settings of py-libp2p 0.8 that matter, with what happened otherwise:

- It must exist before the first connection (peers never open the gossip stream to a latecomer).
- The heartbeat is 120 s by default: a mesh would need minutes to heal.
- Its per-topic rate limit drops everything above 10 messages/s, its rules on addresses refuse peers that share one, as all do in a
  lab: off. Rates are limited here, by messages and by bytes, for each peer that hands us messages.
- It remembers up to 1,000 whole messages to notice a signer that repeats a number: 1 GB of somebody's large messages. Off; what
  may be said only once is signed with its round by the layers above.
- Sequence numbers start at the clock's second: a node that restarts would repeat the last minutes' and be unheard. They start at
  `first_serial` here, which is above those of all earlier lives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11
from libp2p.pubsub.pb import rpc_pb2

from daemon.network.error_boundary import Refusals, contain_errors
from daemon.network.libp2p.control_stream import ControlTraffic
from daemon.network.libp2p.pubsub import (
    DEGREE,
    DEGREE_HIGH,
    DEGREE_LOW,
    MAX_RPC_BYTES,
    BoundedPubsub,
    BoundedSeenCache,
    GossipRates,
    GossipRouter,
)
from daemon.network.libp2p.service_manager import run_service
from daemon.network.limits.stranger_quota import StrangerQuota
from protocol.errors import PeerFault
from protocol.identity import PeerId, public_key_of
from protocol.ports.network import MAX_GOSSIP_BYTES

HEARTBEAT_S = 1
QUEUE_MESSAGES = 1024  # of one subscription that nobody reads...
QUEUE_BYTES = 64 << 20  # ...and their bytes
REFUSED_COUNTS = (
    # Messages, for one that was refused: a forged certificate costs its judge dozens of signatures,
    # and nobody honest brings any.
    50
)
MAX_SUBSCRIPTIONS_OF_PEER = 32  # topics; a run has a handful
# For which a message is known as said, and between looks for those to forget.
SEEN_S, SEEN_SWEEP_S = 120, 30


class TopicSubscription:
    """The `Subscription` of one topic; to the library it is the sending end of the topic's channel."""

    def __init__(self, own: PeerId, *, keep: bool = True) -> None:
        self.dropped = 0
        self._keep = keep
        self._own = own
        self._messages: deque[tuple[PeerId, bytes]] = deque()
        self._size = 0
        self._arrived = trio.Event()

    def send_nowait(self, message: rpc_pb2.Message) -> None:
        """Called by the library for every message that passed the judge."""
        if not self._keep:
            return
        signer: PeerId = ID(message.from_id).to_base58()
        if signer == self._own:
            return
        self._messages.append((signer, message.data))
        self._size += len(message.data)
        while len(self._messages) > QUEUE_MESSAGES or self._size > QUEUE_BYTES:
            _, data = self._messages.popleft()
            self._size -= len(data)
            self.dropped += 1
        self._arrived.set()

    async def aclose(self) -> None:
        """The library closes what it sends to."""

    def __aiter__(self) -> AsyncIterator[tuple[PeerId, bytes]]:
        return self

    async def __anext__(self) -> tuple[PeerId, bytes]:
        await trio.lowlevel.checkpoint()
        while not self._messages:
            self._arrived = trio.Event()
            await self._arrived.wait()
        signer, data = self._messages.popleft()
        self._size -= len(data)
        return signer, data


class Gossip:
    """Topics are subscribed to before it runs.

    `crash` is told of exceptions in our own code that the library would hide.
    """

    def __init__(
        self,
        own: PeerId,
        refusals: Refusals,
        traffic: ControlTraffic,
        crash: Callable[[BaseException], None],
        known: Callable[[PeerId], bool] = lambda _peer: True,
        prefix: Callable[[PeerId], str] = lambda _peer: "",
        matters: Callable[[PeerId], bool] = lambda _peer: False,
    ) -> None:
        """`known` says of whom anybody may bring a message: of those that are connected themselves
        or matter; `prefix` gives the address prefix of a connected peer.

        Those of whom `matters` is true hear us also past a mesh full of strangers.
        """
        self._known, self._prefix, self._matters = known, prefix, matters
        self._introductions = StrangerQuota()
        self._own = own
        self._crash = crash
        self._refusals = refusals
        self._traffic = traffic
        self._topics: dict[str, tuple[TopicSubscription, Callable[[PeerId, bytes], bool]]] = {}
        self._rations = GossipRates()
        self._pubsub: BoundedPubsub | None = None

    def subscribe(
        self, topic: str, accept: Callable[[PeerId, bytes], bool], *, keep: bool = True
    ) -> TopicSubscription:
        if self._pubsub is not None:
            raise RuntimeError("topics are subscribed to before the network starts")
        if topic in self._topics:
            raise ValueError(f"{topic} is subscribed to already")
        inbox = TopicSubscription(self._own, keep=keep)
        self._topics[topic] = (inbox, accept)
        return inbox

    @asynccontextmanager
    async def running(self, host: BasicHost, first_serial: int) -> AsyncIterator[None]:
        """Ready for peers inside the block; entered before the first connection.

        Messages are numbered from `first_serial` on.
        """
        router = GossipRouter(
            # 1.2 adds an IDONTWANT for every message, which doubles the packets of small ones.
            [PROTOCOL_ID_V11],
            DEGREE,
            DEGREE_LOW,
            DEGREE_HIGH,
            heartbeat_interval=HEARTBEAT_S,
            adaptive_gossip_enabled=False,
            spam_protection_enabled=False,
            eclipse_protection_enabled=False,
        )
        router.matters = self._matters
        pubsub = BoundedPubsub(
            host,
            router,
            strict_signing=True,
            max_subscriptions_per_peer=MAX_SUBSCRIPTIONS_OF_PEER,
            max_inbound_rpc_size=MAX_RPC_BYTES,
            allowed_topics=frozenset(self._topics),
            rations=self._rations,
            refusals=self._refusals,
            may_bring=self._may_bring,
        )
        pubsub.counter = first_serial
        pubsub.seen_messages.stop()
        pubsub.seen_messages = BoundedSeenCache(SEEN_S, SEEN_SWEEP_S)
        async with run_service(pubsub), run_service(router):
            await pubsub.wait_until_ready()
            for topic in self._topics:
                await pubsub.subscribe(topic)
                pubsub.set_topic_validator(topic, self._judge, is_async_validator=False)
                pubsub.subscribed_topics_send[topic] = self._topics[topic][0]  # type: ignore[assignment]
            self._pubsub = pubsub
            try:
                yield
            finally:
                self._pubsub = None
                pubsub.seen_messages.stop()

    def connection_ended(self, connection: Any) -> None:
        """One of the connections to a peer is gone."""
        if self._pubsub is not None:
            self._pubsub.connection_ended(connection)

    async def publish(self, topic: str, data: bytes) -> None:
        pubsub = self._pubsub
        if pubsub is None or len(data) > MAX_GOSSIP_BYTES:
            if pubsub is not None:
                self._refusals.count("oversized", f"our own message of {len(data)} bytes")
            await trio.lowlevel.checkpoint()
            return
        self._traffic.sent += len(data)
        with contain_errors("publishing"):
            await pubsub.publish(topic, data)
        await trio.lowlevel.checkpoint()

    def _may_bring(self, bringer: PeerId, signer: PeerId) -> bool:
        if self._known(signer):
            self._introductions.forget(signer)
            return True
        return self._introductions.allows(
            signer, bringer, self._prefix(bringer), trio.current_time()
        )

    def _judge(self, bringer: ID, message: rpc_pb2.Message) -> bool:
        """Whether a message whose signature is right goes on, to us and to others.

        Called once for each.
        """
        try:
            signer: PeerId = ID(message.from_id).to_base58()
            public_key_of(signer)
        except PeerFault:
            self._refusals.count("identity", "gossip signed by something that is no Ed25519 key")
            return False
        if signer == self._own:
            return bringer.to_bytes() == message.from_id
        self._traffic.received += len(message.data)
        if len(message.topicIDs) != 1 or message.topicIDs[0] not in self._topics:
            self._refusals.count("malformed", f"gossip for {len(message.topicIDs)} topics")
            return False
        if len(message.data) > MAX_GOSSIP_BYTES:
            self._refusals.count("oversized", f"gossip of {len(message.data)} bytes from {signer}")
            return False
        accepted = False
        with contain_errors("judging gossip") as outcome:  # the library would swallow it
            accepted = self._topics[message.topicIDs[0]][1](signer, message.data)
        if isinstance(outcome.failed, PeerFault):
            self._refusals.count(outcome.failed.reason, str(outcome.failed))
        elif outcome.failed is not None:
            self._crash(outcome.failed)
        if not accepted:
            self._rations.take(bringer.to_base58(), REFUSED_COUNTS, 0)
        return accepted
