"""Gossip: GossipSub over the host's connections, messages signed by their origin, judged before they are passed on.

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
from typing import Any, cast
from weakref import WeakKeyDictionary

import trio
from libp2p.host.basic_host import BasicHost
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import RpcQueue

from daemon.network.border import Refusals, contained, foreign
from daemon.network.services import service
from daemon.network.stream import ControlTraffic
from protocol.allowance import Allowances
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId, public_key_of
from protocol.ports import MAX_GOSSIP_BYTES

HEARTBEAT_S = 1
DEGREE, DEGREE_LOW, DEGREE_HIGH = 8, 6, 12  # libp2p's recommended 6, 4, 12, raised for small swarms: one more hop costs more than a copy
MAX_RPC_BYTES = MAX_GOSSIP_BYTES + (1 << 16)  # a message of the largest size, its signature and a few control messages
MAX_RPCS_QUEUED = 256  # for one peer; the default of 32 loses a burst of beacons. The messages themselves are shared by all queues
QUEUE_MESSAGES = 1024  # of one subscription that nobody reads...
QUEUE_BYTES = 64 << 20  # ...and their bytes
RATE_MESSAGES_PER_S, BURST_MESSAGES = 500.0, 2000.0  # from one peer: 1,000 members with a beacon every 10 s are 100/s
RATE_BYTES_PER_S, BURST_BYTES = float(8 << 20), float(32 << 20)  # from one peer
REFUSED_COUNTS = (
    50  # messages, for one that was refused: a forged certificate costs its judge dozens of signatures, and nobody honest brings any
)
ANNOUNCE_S = 20.0  # 300 bytes to each neighbour
MAX_SUBSCRIPTIONS_OF_PEER = 32  # topics; a run has a handful


class Inbox:
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


class _Rations:
    """What each peer may hand us, in messages and in bytes."""

    def __init__(self) -> None:
        self._messages = Allowances(per_s=RATE_MESSAGES_PER_S, burst=BURST_MESSAGES)
        self._bytes = Allowances(per_s=RATE_BYTES_PER_S, burst=BURST_BYTES)

    def take(self, bringer: PeerId, messages: float, size: int) -> float:
        """Counts what came. Returns for how many seconds nothing more of this peer should be looked at; 0 while it is within its rates."""
        now = trio.current_time()
        return max(self._messages.of(bringer, now).owe(messages, now), self._bytes.of(bringer, now).owe(size, now))


class _Unhurried:
    """A gossip stream whose reader waits while its peer is above its rates: the library would make a task of every message it reads."""

    def __init__(self, stream: Any, owed_s: Callable[[], float]) -> None:
        self._stream, self._owed_s = stream, owed_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def read(self, n: int | None = None) -> bytes:
        while (owed_s := self._owed_s()) > 0:
            await trio.sleep(owed_s)
        data: bytes = await self._stream.read(n)
        return data


class _Router(GossipSub):
    def _check_equivocation(self, msg: rpc_pb2.Message) -> bool:
        return True


class _Pubsub(Pubsub):
    """Keeps streams to peers with whom connections come and go.

    The library's queue and its replay of recent messages write to one stream at once, and messages of more than a frame (64 KB) arrived
    interleaved: here one at a time. When a stream of a peer breaks it forgets what the peer subscribes to, which a peer whose own
    stream is whole does not say again: kept here while there is a connection, and said again every `ANNOUNCE_S` in any case. When one of
    two connections ends, it keeps writing to the stream on it: told here. When a stream cannot be opened (on the one of two connections
    that is just ending) it gives the peer up: here it goes on trying while there is a connection. It checks the signature of whatever
    comes, in a task for each message: here a peer above its rates is not read on, and what it sent before that is dropped unchecked.
    """

    def __init__(self, *args: Any, rations: _Rations, refusals: Refusals, **options: Any) -> None:
        super().__init__(*args, **options)
        self._rations, self._refusals = rations, refusals
        self._writing: WeakKeyDictionary[Any, trio.Lock] = WeakKeyDictionary()
        self._registering: set[ID] = set()

    async def _handle_new_peer(self, peer_id: ID) -> None:
        if peer_id in self._registering:
            return  # under way, and tried again by whoever began it
        self._registering.add(peer_id)
        try:
            with foreign("opening a gossip stream"):
                await super()._handle_new_peer(peer_id)
        except Unreachable as error:
            raise SwarmException(str(error)) from error  # the one it tries again for
        finally:
            self._registering.discard(peer_id)

    async def continuously_read_stream(self, stream: Any) -> None:
        bringer = stream.muxed_conn.peer_id.to_base58()
        await super().continuously_read_stream(cast(Any, _Unhurried(stream, lambda: self._rations.take(bringer, 0, 0))))

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        if msg_forwarder != self.my_id and self._rations.take(msg_forwarder.to_base58(), 1, len(msg.data)):
            self._refusals.count("busy", f"gossip above its rate, brought by {msg_forwarder.to_base58()}")
            return
        await super().push_msg(msg_forwarder, msg)

    async def run(self) -> None:
        self.manager.run_daemon_task(self._announce)
        await super().run()

    async def _announce(self) -> None:
        while True:
            await trio.sleep(ANNOUNCE_S)
            for queue in list(self.peer_queues.values()):
                queue.push(self.get_hello_packet())

    async def write_msg(self, stream: Any, rpc_msg: rpc_pb2.RPC) -> bool:
        if not rpc_msg.subscriptions:
            # The sender's signed addresses, which it puts on everything. Whoever gets them checks the signature twice, a sixth of what
            # gossip costs; once with every announcement is enough.
            rpc_msg.ClearField("senderRecord")
        async with self._writing.setdefault(stream, trio.Lock()):
            return await super().write_msg(stream, rpc_msg)

    async def handle_sending_messages(self, peer_id: ID, stream: Any, queue: RpcQueue) -> None:
        queue.max_message_size = MAX_RPC_BYTES
        queue._queue.max_size = MAX_RPCS_QUEUED
        await super().handle_sending_messages(peer_id, stream, queue)

    def connection_ended(self, connection: Any) -> None:
        stream = self.peers.get(connection.peer_id)
        if stream is not None and stream.muxed_conn is connection:
            self._handle_dead_peer(connection.peer_id)

    def _handle_dead_peer(self, peer_id: ID) -> None:
        kept = [topic for topic, peers in self.peer_topics.items() if peer_id in peers] if self._peer_is_connected(peer_id) else []
        super()._handle_dead_peer(peer_id)
        for topic in kept:
            self.handle_subscription(peer_id, rpc_pb2.RPC.SubOpts(subscribe=True, topicid=topic))


class Gossip:
    """Topics are subscribed to before it runs. `crash` is told of exceptions in our own code that the library would hide."""

    def __init__(
        self, own: PeerId, refusals: Refusals, traffic: ControlTraffic, crash: Callable[[BaseException], None], first_serial: int
    ) -> None:
        self._own = own
        self._first_serial = first_serial
        self._crash = crash
        self._refusals = refusals
        self._traffic = traffic
        self._topics: dict[str, tuple[Inbox, Callable[[PeerId, bytes], bool]]] = {}
        self._rations = _Rations()
        self._pubsub: _Pubsub | None = None

    def subscribe(self, topic: str, accept: Callable[[PeerId, bytes], bool], *, keep: bool = True) -> Inbox:
        if self._pubsub is not None:
            raise RuntimeError("topics are subscribed to before the network starts")
        if topic in self._topics:
            raise ValueError(f"{topic} is subscribed to already")
        inbox = Inbox(self._own, keep=keep)
        self._topics[topic] = (inbox, accept)
        return inbox

    @asynccontextmanager
    async def running(self, host: BasicHost) -> AsyncIterator[None]:
        """Ready for peers inside the block; entered before the first connection."""
        router = _Router(
            [PROTOCOL_ID_V11],  # 1.2 adds an IDONTWANT for every message, which doubles the packets of small ones
            DEGREE,
            DEGREE_LOW,
            DEGREE_HIGH,
            heartbeat_interval=HEARTBEAT_S,
            adaptive_gossip_enabled=False,
            spam_protection_enabled=False,
            eclipse_protection_enabled=False,
        )
        pubsub = _Pubsub(
            host,
            router,
            strict_signing=True,
            max_subscriptions_per_peer=MAX_SUBSCRIPTIONS_OF_PEER,
            max_inbound_rpc_size=MAX_RPC_BYTES,
            allowed_topics=frozenset(self._topics),
            rations=self._rations,
            refusals=self._refusals,
        )
        pubsub.counter = self._first_serial
        async with service(pubsub), service(router):
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
        with contained("publishing"):
            await pubsub.publish(topic, data)
        await trio.lowlevel.checkpoint()

    def _judge(self, bringer: ID, message: rpc_pb2.Message) -> bool:
        """Whether a message whose signature is right goes on, to us and to others. Called once for each."""
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
        with contained("judging gossip") as outcome:  # the library would swallow it
            accepted = self._topics[message.topicIDs[0]][1](signer, message.data)
        if isinstance(outcome.failed, PeerFault):
            self._refusals.count(outcome.failed.reason, str(outcome.failed))
        elif outcome.failed is not None:
            self._crash(outcome.failed)
        if not accepted:
            self._rations.take(bringer.to_base58(), REFUSED_COUNTS, 0)
        return accepted
