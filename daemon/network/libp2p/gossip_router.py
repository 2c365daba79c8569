"""GossipSub's router, with what strangers could multiply in it bounded.

- Control messages name any topic, any number of messages, and peers to connect to. The router
  keeps what is about our topics, a bounded number of it, and no peers.
- A mesh is open to every peer. The router sends to members past a mesh full of strangers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2

from protocol.identity import PeerId

# libp2p recommends 6, 4, 12. Small swarms have more: one more hop costs more than a copy.
DEGREE, DEGREE_LOW, DEGREE_HIGH = 8, 6, 12
# Control messages of each kind in one message. A heartbeat has one of each kind for each topic.
MAX_CONTROLS = 32
# Ids named in one IHAVE or IWANT: what a thousand members say in ten seconds.
MAX_MESSAGE_IDS = 256
# The longest time for which a peer may ask to be left out of a mesh.
MAX_BACKOFF_S = 300
# Peers of one topic whose back-off outlives their connection.
MAX_BACKED_OFF = 512


class GossipRouter(GossipSub):
    """A mesh that strangers cannot take over.

    Any peer may graft itself into a mesh, and a mesh above its size prunes by chance. Twenty
    strangers that pass nothing on put a member out of it, for a minute after they left. So of the
    peers that matter, `DEGREE_LOW` always receive a message.
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
        """Accept every message: the check would remember 1,000 whole messages."""
        return True

    async def handle_rpc(self, rpc: rpc_pb2.RPC, sender_peer_id: ID) -> None:
        """Handle a message without what a stranger could multiply.

        That is: topics that we do not have, long lists, and peers to connect to.
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
        """Forget a peer, but for the back-off that it asked for.

        The library keeps the back-off of peers that are gone without a limit. The last
        `MAX_BACKED_OFF` of a topic are enough.
        """
        super().remove_peer(peer_id)
        for backed_off in self.back_off.values():
            while len(backed_off) > MAX_BACKED_OFF:
                del backed_off[next(iter(backed_off))]
