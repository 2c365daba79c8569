"""py-libp2p's gossip with bounded input, on streams that survive a change of connections.

- A peer above its rates is not read, and what it sent before that is dropped unchecked.
- A peer may open any number of gossip streams, each with a message of the largest size. The newest
  stream is read, as in go-libp2p. Older ones are reset.
- The library remembers every message id for two minutes without a limit. `gossip_limits.py` has
  one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from weakref import WeakKeyDictionary

import trio
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import RpcQueue

from daemon.network.error_boundary import Refusals, translate_errors
from daemon.network.libp2p.gossip_limits import GossipRates, ThrottledStream
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.ports.network import MAX_GOSSIP_BYTES

# A message of the largest size, its signature and a few control messages.
MAX_RPC_BYTES = MAX_GOSSIP_BYTES + (1 << 16)
# Queued for one peer. The default of 32 loses a burst of beacons. All queues share the messages.
MAX_RPCS_QUEUED = 256
# Our subscriptions are announced again at this interval: 300 bytes to each neighbour.
ANNOUNCE_S = 20.0
# A signer's id has 38 bytes, a message's number 8. Both are remembered.
MAX_ID_BYTES, MAX_SEQNO_BYTES = 64, 16


class BoundedPubsub(Pubsub):
    """Keeps gossip flowing to peers whose connections come and go.

    What the library does, and what this class does instead:

    - Its queue and its replay of recent messages write to one stream at once, so that messages of
      more than a frame (64 KB) interleave. Here they write one at a time.
    - When a peer's stream breaks, it forgets the peer's subscriptions, and a peer whose own stream
      is whole does not repeat them. Here they are kept while there is a connection, and each node
      announces its own every `ANNOUNCE_S`.
    - When one of two connections ends, it keeps writing to that connection's stream. Here
      `connection_ended` tells it.
    - When a stream cannot be opened, on a connection that is just ending, it gives the peer up.
      Here it goes on trying while there is a connection.
    - It checks every signature in a task of its own. Here a peer above its rates is not read.
    """

    def __init__(
        self,
        *args: Any,
        rates: GossipRates,
        refusals: Refusals,
        may_bring: Callable[[PeerId, PeerId], bool],
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._may_bring = may_bring
        self._rates, self._refusals = rates, refusals
        self._writing: WeakKeyDictionary[Any, trio.Lock] = WeakKeyDictionary()
        self._registering: set[ID] = set()
        # The newest stream of each peer.
        self._reading: dict[ID, ThrottledStream] = {}

    async def _handle_new_peer(self, peer_id: ID) -> None:
        if peer_id in self._registering:
            # Another task opens the stream, and tries again where that fails.
            return
        self._registering.add(peer_id)
        try:
            with translate_errors("opening a gossip stream"):
                await super()._handle_new_peer(peer_id)
        except Unreachable as error:
            # This is the exception after which the library tries again.
            raise SwarmException(str(error)) from error
        finally:
            self._registering.discard(peer_id)

    async def continuously_read_stream(self, stream: Any) -> None:
        """Read the newest stream of a peer, and give an older one back."""
        peer_id: ID = stream.muxed_conn.peer_id
        bringer = peer_id.to_base58()
        newest = ThrottledStream(stream, lambda: self._rates.charge(bringer, 0, 0))
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
            if self._rates.charge(bringer, 1, len(msg.data)):
                self._refusals.count("busy", f"gossip above its rate, brought by {bringer}")
                return
            if (
                len(msg.from_id) > MAX_ID_BYTES
                or len(msg.seqno) > MAX_SEQNO_BYTES
                or len(msg.topicIDs) != 1
            ):
                self._refusals.count(
                    "malformed",
                    f"gossip with an id of {len(msg.from_id) + len(msg.seqno)} bytes, "
                    f"brought by {bringer}",
                )
                return
            # This comes before the signature is checked and before the library remembers the
            # verdict, since another neighbour may bring the same message.
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
            # The library puts the sender's signed addresses on everything, and each receiver
            # checks the signature twice: a sixth of what gossip costs. Once with every
            # announcement is enough.
            rpc_msg.ClearField("senderRecord")
        async with self._writing.setdefault(stream, trio.Lock()):
            return await super().write_msg(stream, rpc_msg)

    async def handle_sending_messages(self, peer_id: ID, stream: Any, queue: RpcQueue) -> None:
        queue.max_message_size = MAX_RPC_BYTES
        queue._queue.max_size = MAX_RPCS_QUEUED
        await super().handle_sending_messages(peer_id, stream, queue)

    def connection_ended(self, connection: Any) -> None:
        """Give up the stream on a connection that is gone."""
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
