"""Gossip: GossipSub over the host's connections, with messages signed by their origin.

A message is judged before it is passed on. Settings of py-libp2p 0.8 that matter, with what
happened otherwise:

- Gossip must exist before the first connection: peers never open the gossip stream to a latecomer.
- The heartbeat is 120 s by default, and a mesh would need minutes to heal.
- Its rate limit per topic drops everything above 10 messages/s, and its rules on addresses refuse
  peers that share an address, as all do in a lab. Both are off. Our limits count the messages and
  bytes that each peer brings.
- It remembers up to 1,000 whole messages to notice a signer that repeats a number. Large messages
  would take 1 GB. This is off. The layers above sign the round of each message that must be
  unique.
- Sequence numbers start at the clock's second, so that a restarted node would repeat recent numbers
  and be ignored. Here they start at `first_serial`, above those of all earlier runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11
from libp2p.pubsub.pb import rpc_pb2

from daemon.network.byte_counter import ByteCounter
from daemon.network.error_boundary import Refusals, contain_errors
from daemon.network.libp2p.gossip_limits import BoundedSeenCache, GossipRates
from daemon.network.libp2p.gossip_router import DEGREE, DEGREE_HIGH, DEGREE_LOW, GossipRouter
from daemon.network.libp2p.pubsub import MAX_RPC_BYTES, BoundedPubsub
from daemon.network.libp2p.service_manager import run_service
from daemon.network.libp2p.topic_subscription import TopicSubscription
from daemon.network.limits.stranger_quota import StrangerQuota
from protocol.errors import PeerFault
from protocol.identity import PeerId, public_key_of
from protocol.ports.network import MAX_GOSSIP_BYTES

HEARTBEAT_S = 1
# A refused message costs its bringer as many messages of its rate. A forged certificate costs its
# judge dozens of signature checks, and no honest peer brings one.
REFUSED_COUNTS = 50
# Topics of one peer. A run has a handful.
MAX_SUBSCRIPTIONS_OF_PEER = 32
# How long a message id is remembered, and the pause between sweeps.
SEEN_S, SEEN_SWEEP_S = 120, 30


class Gossip:
    """Publishes and receives the messages of topics. Topics are subscribed to before it runs."""

    def __init__(
        self,
        own: PeerId,
        refusals: Refusals,
        traffic: ByteCounter,
        crash: Callable[[BaseException], None],
        known: Callable[[PeerId], bool] = lambda _peer: True,
        prefix: Callable[[PeerId], str] = lambda _peer: "",
        matters: Callable[[PeerId], bool] = lambda _peer: False,
    ) -> None:
        """
        Args:
            crash: Called with exceptions of our own code that the library would hide.
            known: Says whose messages any peer may bring without a limit.
            prefix: Gives the address prefix of a connected peer.
            matters: Says which peers receive our messages past a mesh full of strangers.
        """
        self._known, self._prefix, self._matters = known, prefix, matters
        self._stranger_quota = StrangerQuota()
        self._own = own
        self._crash = crash
        self._refusals = refusals
        self._traffic = traffic
        self._topics: dict[str, tuple[TopicSubscription, Callable[[PeerId, bytes], bool]]] = {}
        self._rates = GossipRates()
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
        """Serve peers inside the block. It is entered before the first connection.

        Messages are numbered from `first_serial` on.
        """
        router = GossipRouter(
            # Version 1.2 adds an IDONTWANT per message, which doubles the packets of small ones.
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
            rates=self._rates,
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
                channel: Any = self._topics[topic][0]
                pubsub.subscribed_topics_send[topic] = channel
            self._pubsub = pubsub
            try:
                yield
            finally:
                self._pubsub = None
                pubsub.seen_messages.stop()

    def connection_ended(self, connection: Any) -> None:
        """Note that one of the connections to a peer is gone."""
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
            self._stranger_quota.forget(signer)
            return True
        return self._stranger_quota.allows(
            signer, bringer, self._prefix(bringer), trio.current_time()
        )

    def _judge(self, bringer: ID, message: rpc_pb2.Message) -> bool:
        """Whether a message with a valid signature goes on, to us and to others.

        The library calls this once for each message.
        """
        try:
            signer: PeerId = ID(message.from_id).to_base58()
            public_key_of(signer)
        except PeerFault:
            self._refusals.count("identity", "gossip whose signer is not an Ed25519 key")
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
        # The library would swallow an exception.
        with contain_errors("judging gossip") as outcome:
            accepted = self._topics[message.topicIDs[0]][1](signer, message.data)
        if isinstance(outcome.failed, PeerFault):
            self._refusals.count(outcome.failed.reason, str(outcome.failed))
        elif outcome.failed is not None:
            self._crash(outcome.failed)
        if not accepted:
            self._rates.charge(bringer.to_base58(), REFUSED_COUNTS, 0)
        return accepted
