"""ReplyLimiter: which peer gets a slot when strangers read slowly."""

from __future__ import annotations

import math
import random

import msgspec
import trio

from daemon.swarm import chain_sync, state_transfer
from daemon.swarm.chain_sync import ChainReply, ChainRequest, serve_chain
from daemon.swarm.frames import FrameReader, frame
from daemon.swarm.piece_server import PIECES_PER_REQUEST, PieceReply, PieceRequest
from daemon.swarm.reply_limiter import MIN_SLOT_S, ReplyLimiter
from protocol.errors import PeerFault
from protocol.identity import PeerId
from protocol.ports.network import Source
from simulator.fakes.clock import run_virtual
from simulator.fakes.network import FakeNetwork
from simulator.fakes.swarm import FakeSwarm
from tests.daemon.swarm.test_state_download import LEAVES, RUN, TIP, Holder

SLOTS = 8
CHUNK_BYTES = 256 << 10


def source_of(peer: PeerId) -> Source:
    """The source of a peer. The first word of its name is its prefix, as in "crowd 3"."""
    prefix = peer.split()[0]
    return Source(prefix=prefix, matters=prefix == "member")


def waits_s(peers: dict[PeerId, float]) -> tuple[dict[PeerId, float], list[PeerId]]:
    """Play peers that arrive at the given times, in seconds.

    A peer with the prefix "member" returns its slot at once. Every other peer keeps its slot.

    Returns:
        The wait of each peer for a slot, in seconds, and the peers whose slots ended early.
    """
    waited: dict[PeerId, float] = {}
    ended: list[PeerId] = []

    async def main() -> None:
        limiter = ReplyLimiter(2, SLOTS, source_of)

        async def one(peer: PeerId, arrives_s: float) -> None:
            await trio.sleep(arrives_s)
            try:
                async with limiter.slot(peer):
                    waited[peer] = trio.current_time() - arrives_s - began
                    await trio.sleep(0.0 if source_of(peer).matters else math.inf)
            except PeerFault:
                ended.append(peer)

        began = trio.current_time()
        with trio.move_on_after(120.0):
            async with trio.open_nursery() as nursery:
                for peer, arrives_s in peers.items():
                    nursery.start_soon(one, peer, arrives_s)
                    await trio.testing.wait_all_tasks_blocked()
        assert limiter.count == 0

    run_virtual(main)
    return waited, ended


CROWD = {f"crowd {n}": 0.0 for n in range(SLOTS * 3 // 4)}


def test_a_member_does_not_wait_for_strangers() -> None:
    waited, ended = waits_s({**CROWD, "member 1": 1.0})
    assert waited["member 1"] < 0.1
    assert not ended, "a slot is kept for members"


def test_a_stranger_of_another_prefix_does_not_wait_for_a_crowd() -> None:
    waited, ended = waits_s({**CROWD, "home 1": 1.0})
    assert waited["home 1"] < 0.1
    assert ended == ["crowd 0"]


def test_a_stranger_of_the_same_prefix_waits_for_the_oldest_slot() -> None:
    waited, ended = waits_s({**CROWD, "crowd 99": 1.0})
    assert MIN_SLOT_S - 1.1 < waited["crowd 99"] < MIN_SLOT_S
    assert ended == ["crowd 0"]


def test_no_slot_ends_early_while_no_peer_waits() -> None:
    assert waits_s(CROWD)[1] == []


class Scenario:
    """A holder of a state and certificates, a member that comes back, and 40 made-up keys."""

    def __init__(self) -> None:
        self.swarm = FakeSwarm(random.Random(1))
        self.holder = Holder(self.swarm, 1, uplink_bps=math.inf)
        serve_chain(self.holder.network, RUN, _chain)
        self.member = self.swarm.network(b"\2" * 32)
        self.strangers = [self.swarm.network(bytes([n]) * 32) for n in range(10, 50)]
        self.waited_s: dict[str, float] = {}

    async def play(self) -> None:
        networks = (self.holder.network, self.member, *self.strangers)
        async with self.swarm.running(), trio.open_nursery() as nursery:
            for network in networks:
                await nursery.start(_live, network)
            await self.holder.keep()
            self.holder.network.keep(frozenset({self.member.peer}))
            for stranger in self.strangers:
                nursery.start_soon(self.read_nothing, stranger)
            # By now strangers hold every slot that they may hold.
            await trio.sleep(5.0)
            await self.ask(self.member)
            nursery.cancel_scope.cancel()

    async def read_nothing(self, stranger: FakeNetwork) -> None:
        """Ask for as much as one request may, and read nothing of the answer."""
        peer = self.holder.network.peer
        state = await stranger.open_stream(peer, state_transfer.PROTOCOL)
        chain = await stranger.open_stream(peer, chain_sync.PROTOCOL)
        wanted = PieceRequest(tip=TIP, first=0, count=PIECES_PER_REQUEST)
        await state.send_all(frame(msgspec.msgpack.encode(wanted)))
        await chain.send_all(frame(msgspec.msgpack.encode(ChainRequest(run=RUN, first=1))))
        await trio.sleep_forever()

    async def ask(self, network: FakeNetwork) -> None:
        peer, began = self.holder.network.peer, trio.current_time()
        stream = await network.open_stream(peer, state_transfer.PROTOCOL)
        await stream.send_all(
            frame(msgspec.msgpack.encode(PieceRequest(tip=TIP, first=0, count=0)))
        )
        reader = FrameReader(stream)
        reply = msgspec.msgpack.decode(await reader.expect_frame(256), type=PieceReply)
        assert await reader.read_exactly(reply.size) == b"".join(LEAVES)
        self.waited_s["state"] = trio.current_time() - began
        began = trio.current_time()
        stream = await network.open_stream(peer, chain_sync.PROTOCOL)
        await stream.send_all(frame(msgspec.msgpack.encode(ChainRequest(run=RUN, first=1))))
        assert await FrameReader(stream).expect_frame(256)
        self.waited_s["chain"] = trio.current_time() - began


async def _chain(_first: int, _limit: int) -> tuple[ChainReply, list[bytes]]:
    return ChainReply(tip=TIP, number=1, age_s=0.0, count=3), [bytes(CHUNK_BYTES)] * 3


async def _live(network: FakeNetwork, *, task_status: trio.TaskStatus[None]) -> None:
    async with network.running():
        task_status.started()
        await trio.sleep_forever()


def test_a_member_gets_state_and_chain_beside_40_strangers_that_read_nothing() -> None:
    """The member once waited 60 s for each answer: 8 keys held all 16 slots of a state."""
    scenario = Scenario()
    run_virtual(scenario.play)
    assert max(scenario.waited_s.values()) < 1.0
