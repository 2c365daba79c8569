"""py-libp2p's gossip, with what strangers could multiply in it bounded, and streams kept while
connections come and go.

- A peer above its rates is not read on (`ThrottledStream`), and what it sent before that is dropped unchecked.
- A peer opens any number of gossip streams, and each holds up to a message of the largest size. The newest one is read, as in go-libp2p;
  an older one is reset.
- Control messages name any topic, any number of messages, and peers to connect to. `GossipRouter` keeps what is about our topics, a bounded
  number of it, and no peers.
- A mesh is open to anyone. `GossipRouter` sends to members also past a mesh full of strangers.
- The library remembers every message id for two minutes without a limit. `BoundedSeenCache` has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast
from weakref import WeakKeyDictionary

import trio
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import RpcQueue
from libp2p.tools.timed_cache.last_seen_cache import LastSeenCache

from daemon.network.error_boundary import Refusals, translate_errors
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.ports.network import MAX_GOSSIP_BYTES
from protocol.rate_limiter import RateLimiters

# libp2p's recommended 6, 4, 12, raised for small swarms: one more hop costs more than a copy.
DEGREE, DEGREE_LOW, DEGREE_HIGH = 8, 6, 12
# A message of the largest size, its signature and a few control messages.
MAX_RPC_BYTES = MAX_GOSSIP_BYTES + (1 << 16)
# For one peer; the default of 32 loses a burst of beacons. The messages themselves are shared by
# all queues.
MAX_RPCS_QUEUED = 256
# From one peer: 1,000 members with a beacon every 10 s are 100/s.
RATE_MESSAGES_PER_S, BURST_MESSAGES = 500.0, 2000.0
RATE_BYTES_PER_S, BURST_BYTES = float(8 << 20), float(32 << 20)  # from one peer
ANNOUNCE_S = 20.0  # 300 bytes to each neighbour
# Of each kind in one message from a peer: a heartbeat has one of each for each topic.
MAX_CONTROLS = 32
# Named in one IHAVE or IWANT: what a thousand members say in ten seconds.
MAX_MESSAGE_IDS = 256
# For which a peer may ask to be left out of a mesh.
MAX_BACKOFF_S = 300
# Peers of one topic whose wish outlives their connection.
MAX_BACKED_OFF = 512
# Of a signer's id (38 bytes) and a message's number (8), which are remembered.
MAX_ID_BYTES, MAX_SEQNO_BYTES = 64, 16
# Ids remembered, 100 bytes each: two minutes of what one peer may bring.
SEEN_MESSAGES = 1 << 16


class GossipRates:
    """What each peer may hand us, in messages and in bytes."""

    def __init__(self) -> None:
        self._messages = RateLimiters(per_s=RATE_MESSAGES_PER_S, burst=BURST_MESSAGES)
        self._bytes = RateLimiters(per_s=RATE_BYTES_PER_S, burst=BURST_BYTES)

    def take(self, bringer: PeerId, messages: float, size: int) -> float:
        """Counts what came.

        Returns for how many seconds nothing more of this peer should be looked at; 0 while it is
        within its rates.
        """
        now = trio.current_time()
        return max(
            self._messages.of(bringer, now).owe(messages, now),
            self._bytes.of(bringer, now).owe(size, now),
        )


class ThrottledStream:
    """A gossip stream whose reader waits while its peer is above its rates: the library would make
    a task of every message it reads.

    `supersede` ends the stream for its reader, also while the reader waits.
    """

    def __init__(self, stream: Any, owed_s: Callable[[], float]) -> None:
        self._stream, self._owed_s = stream, owed_s
        self._scope = trio.CancelScope()
        self.superseded = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def supersede(self) -> None:
        """The peer opened a newer stream."""
        self.superseded = True
        self._scope.cancel()

    async def read(self, n: int | None = None) -> bytes:
        with trio.CancelScope() as self._scope:
            while not self.superseded and (owed_s := self._owed_s()) > 0:
                await trio.sleep(owed_s)
            if not self.superseded:
                data: bytes = await self._stream.read(n)
                return data
        raise StreamEOF("a newer stream of the same peer takes its place")


class BoundedSeenCache(LastSeenCache):
    """Bounded: the id remembered first makes room."""

    def add(self, key: bytes) -> bool:
        new: bool = super().add(key)
        # A thread of the library's looks through it now and then.
        with self.lock:
            while len(self.cache) > SEEN_MESSAGES:
                del self.cache[next(iter(self.cache))]
        return new


class GossipRouter(GossipSub):
    """A mesh that strangers cannot take over.

    Any peer may graft itself into a mesh, and a mesh above its size prunes by chance: twenty
    strangers that pass nothing on put a member out of it, for a minute after they left. So of the
    peers that matter, `DEGREE_LOW` hear a message in any case.
    """

    matters: Callable[[PeerId], bool] = staticmethod(lambda _peer: False)

    def _get_peers_to_send(
        self,
        topic_ids: Iterable[str],
        msg_forwarder: ID,
        origin: ID,
        msg_id: bytes | None = None,
    ) -> Iterable[ID]:
        topics = list(topic_ids)
        chosen = set(super()._get_peers_to_send(topics, msg_forwarder, origin, msg_id))
        known = self.pubsub.peer_topics if self.pubsub is not None else {}
        kept = {
            one for topic in topics for one in known.get(topic, ()) if self.matters(one.to_base58())
        }
        lacking = DEGREE_LOW - len(kept & chosen)
        if lacking > 0:
            chosen.update(
                sorted(kept - chosen - {msg_forwarder, origin}, key=ID.to_bytes)[:lacking]
            )
        return chosen

    def _check_equivocation(self, msg: rpc_pb2.Message) -> bool:
        return True

    async def handle_rpc(self, rpc: rpc_pb2.RPC, sender_peer_id: ID) -> None:
        """Without what a stranger could multiply: topics nobody has, long lists, peers that we
        should connect to.
        """
        topics, control = self.mesh.keys() | self.fanout.keys(), rpc.control
        kept = rpc_pb2.ControlMessage()
        for ihave in control.ihave[:MAX_CONTROLS]:
            if ihave.topicID in topics:
                kept.ihave.append(
                    rpc_pb2.ControlIHave(
                        topicID=ihave.topicID, messageIDs=ihave.messageIDs[:MAX_MESSAGE_IDS]
                    )
                )
        for iwant in control.iwant[:MAX_CONTROLS]:
            kept.iwant.append(
                rpc_pb2.ControlIWant(
                    messageIDs=list(dict.fromkeys(iwant.messageIDs[:MAX_MESSAGE_IDS]))
                )
            )
        kept.graft.extend(
            graft for graft in control.graft[:MAX_CONTROLS] if graft.topicID in topics
        )
        for prune in control.prune[:MAX_CONTROLS]:
            if prune.topicID in topics:
                kept.prune.append(
                    rpc_pb2.ControlPrune(
                        topicID=prune.topicID, backoff=min(prune.backoff, MAX_BACKOFF_S)
                    )
                )
        rpc.control.CopyFrom(kept)
        await super().handle_rpc(rpc, sender_peer_id)

    def remove_peer(self, peer_id: ID) -> None:
        """The library keeps the wishes of peers that are gone: the last `MAX_BACKED_OFF` of a topic
        are enough.
        """
        super().remove_peer(peer_id)
        for wishes in self.back_off.values():
            while len(wishes) > MAX_BACKED_OFF:
                del wishes[next(iter(wishes))]


class BoundedPubsub(Pubsub):
    """Keeps streams to peers with whom connections come and go.

    The library's queue and its replay of recent messages write to one stream at once, and messages
    of more than a frame (64 KB) arrived interleaved: here one at a time. When a stream of a peer
    breaks it forgets what the peer subscribes to, which a peer whose own stream is whole does not
    say again: kept here while there is a connection, and said again every `ANNOUNCE_S` in any case.
    When one of two connections ends, it keeps writing to the stream on it: told here. When a stream
    cannot be opened (on the one of two connections that is just ending) it gives the peer up: here
    it goes on trying while there is a connection. It checks the signature of whatever comes, in a
    task for each message: here a peer above its rates is not read on, and what it sent before that
    is dropped unchecked.
    """

    def __init__(
        self,
        *args: Any,
        rations: GossipRates,
        refusals: Refusals,
        may_bring: Callable[[PeerId, PeerId], bool],
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._may_bring = may_bring
        self._rations, self._refusals = rations, refusals
        self._writing: WeakKeyDictionary[Any, trio.Lock] = WeakKeyDictionary()
        self._registering: set[ID] = set()
        self._reading: dict[ID, ThrottledStream] = {}  # the newest stream of each peer

    async def _handle_new_peer(self, peer_id: ID) -> None:
        if peer_id in self._registering:
            # Under way, and tried again by whoever began it.
            return
        self._registering.add(peer_id)
        try:
            with translate_errors("opening a gossip stream"):
                await super()._handle_new_peer(peer_id)
        except Unreachable as error:
            raise SwarmException(str(error)) from error  # the one it tries again for
        finally:
            self._registering.discard(peer_id)

    async def continuously_read_stream(self, stream: Any) -> None:
        """The newest stream of a peer: what an older one holds is given back."""
        peer_id: ID = stream.muxed_conn.peer_id
        bringer = peer_id.to_base58()
        newest = ThrottledStream(stream, lambda: self._rations.take(bringer, 0, 0))
        older, self._reading[peer_id] = self._reading.get(peer_id), newest
        if older is not None:
            older.supersede()
        try:
            await super().continuously_read_stream(cast(Any, newest))
        finally:
            if self._reading.get(peer_id) is newest:
                del self._reading[peer_id]
        if newest.superseded:
            await stream.reset()

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        if msg_forwarder != self.my_id:
            bringer = msg_forwarder.to_base58()
            if self._rations.take(bringer, 1, len(msg.data)):
                self._refusals.count("busy", f"gossip above its rate, brought by {bringer}")
                return
            if (
                len(msg.from_id) > MAX_ID_BYTES
                or len(msg.seqno) > MAX_SEQNO_BYTES
                or len(msg.topicIDs) != 1
            ):
                self._refusals.count(
                    "malformed",
                    f"gossip with an id of {len(msg.from_id) + len(msg.seqno)} bytes, brought by {bringer}",
                )
                return
            # Before its signature is checked and before the library remembers the judgement:
            # another neighbour may bring the same message.
            if not self._may_bring(bringer, ID(msg.from_id).to_base58()):
                self._refusals.count(
                    "busy", f"{bringer} brings gossip of more strangers than it may"
                )
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
            # The sender's signed addresses, which it puts on everything. Whoever gets them checks
            # the signature twice, a sixth of what gossip costs; once with every announcement is
            # enough.
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
        kept = (
            [topic for topic, peers in self.peer_topics.items() if peer_id in peers]
            if self._peer_is_connected(peer_id)
            else []
        )
        super()._handle_dead_peer(peer_id)
        for topic in kept:
            self.handle_subscription(peer_id, rpc_pb2.RPC.SubOpts(subscribe=True, topicid=topic))
