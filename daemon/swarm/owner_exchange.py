"""Spreads the owner's records: by gossip, and by asking each new neighbour for all of them.

Only the owner can sign a record, so passing one on costs a node nothing that others could inflate.
"""

from __future__ import annotations

from collections import OrderedDict

import trio

from daemon.swarm.frames import FrameReader, frame
from daemon.swarm.messenger import Refuse
from daemon.swarm.reply_limiter import ReplyLimiter
from daemon.system.trio_types import TaskStatus
from protocol.digest import Digest
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.membership.owner_record import OwnerRecords
from protocol.messages.base import Signed
from protocol.messages.envelope import decode_signed, encode_signed
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network

PROTOCOL = "/hypergpu/owner/1"
# Between two looks for new neighbours and new records of our own.
LOOK_S = 1.0
# A neighbour is asked again after this time: gossip may have lost a record.
ASK_AGAIN_S = 300.0
# The time for one request and its answer.
ANSWER_S = 20.0
# All records of a run (`MAX_RECORDS`) take 300 KB.
MAX_REPLY_BYTES = 1 << 20
SERVED_AT_ONCE, SERVED_TO_PEER = 16, 1
# Neighbours that are asked at once.
ASKED_AT_ONCE = 16
# Neighbours whose last answer is remembered.
MOST_ASKED = 1024


class OwnerExchange:
    """Keeps one node's `OwnerRecords` equal to those of its neighbours."""

    def __init__(
        self, network: Network, run: Digest, records: OwnerRecords, refuse: Refuse
    ) -> None:
        """Register the protocol on a network that has not started."""
        self._network, self._records, self._refuse = network, records, refuse
        self._topic = f"hypergpu/{run.hex()}/owner"
        self._asked: OrderedDict[PeerId, float] = OrderedDict()
        self._published: set[bytes] = set()
        self._limiter = ReplyLimiter(SERVED_TO_PEER, SERVED_AT_ONCE, network.source_of)
        network.subscribe(self._topic, self._accept, keep=False)
        network.serve(PROTOCOL, self._answer)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Exchange records until cancelled."""
        self._published = {signed.signature for signed in self._records.signed()}
        places = trio.CapacityLimiter(ASKED_AT_ONCE)
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                await self._publish_new()
                for peer in self._due():
                    nursery.start_soon(self._ask_neighbour, peer, places)
                await trio.sleep(LOOK_S)

    def _accept(self, peer: PeerId, data: bytes) -> bool:
        """Keep a record that came by gossip; False drops it."""
        try:
            signed = decode_signed(data)
            self._records.add(signed)
        except PeerFault as fault:
            self._refuse(fault.reason, peer, str(fault))
            return False
        # What arrived by gossip needs no gossip of ours.
        self._published.add(signed.signature)
        return True

    async def _publish_new(self) -> None:
        new: list[Signed] = [
            signed for signed in self._records.signed() if signed.signature not in self._published
        ]
        for signed in new:
            self._published.add(signed.signature)
            await self._network.publish(self._topic, encode_signed(signed))

    def _due(self) -> list[PeerId]:
        """The neighbours to ask now."""
        now, due = trio.current_time(), list[PeerId]()
        for link in self._network.links():
            if now - self._asked.get(link.peer, -ASK_AGAIN_S) < ASK_AGAIN_S:
                continue
            self._asked.pop(link.peer, None)
            self._asked[link.peer] = now
            if len(self._asked) > MOST_ASKED:
                self._asked.popitem(last=False)
            due.append(link.peer)
        return due

    async def _ask_neighbour(self, peer: PeerId, places: trio.CapacityLimiter) -> None:
        """Ask in a task of its own: a silent neighbour must not delay what others hear."""
        try:
            async with places:
                data = await self._ask(peer)
            for record in self._records.add_encoded(data):
                # The peer that gave it has published it, or heard it.
                self._published.add(record.signed.signature)
        except Unreachable:
            # It is asked again later, and gossip brings new records.
            return
        except PeerFault as fault:
            self._refuse(fault.reason, peer, str(fault))

    async def _ask(self, peer: PeerId) -> bytes:
        with trio.move_on_after(ANSWER_S):
            stream = await self._network.open_stream(peer, PROTOCOL)
            try:
                await stream.send_eof()
                return await FrameReader(stream).expect_frame(MAX_REPLY_BYTES)
            finally:
                await stream.aclose()
        raise Unreachable(f"no records of the owner within {ANSWER_S:g} s")

    async def _answer(self, stream: ByteStream) -> None:
        with trio.move_on_after(ANSWER_S):
            async with self._limiter.slot(stream.peer):
                await stream.send_all(frame(self._records.encode()))
                await stream.send_eof()
