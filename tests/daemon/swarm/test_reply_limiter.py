"""Who gets a place when strangers read slowly."""

from __future__ import annotations

import math
import random

import msgspec
import trio

from daemon.swarm import chain_sync, state_transfer
from daemon.swarm.chain_sync import ChainReply, ChainRequest, serve_chain
from daemon.swarm.frames import FrameReader, frame
from daemon.swarm.reply_limiter import MIN_SLOT_S, ReplyLimiter
from daemon.swarm.state_transfer import CHUNKS_PER_REQUEST, StateReply, StateRequest
from protocol.errors import PeerFault
from protocol.identity import PeerId
from protocol.ports.network import Source
from simulator.fakes.clock import run_virtual
from simulator.fakes.network import FakeNetwork
from simulator.fakes.swarm import FakeSwarm
from tests.daemon.swarm.test_state_download import LEAVES, RUN, TIP, Holder

PLACES = 8
CHUNK_BYTES = 256 << 10


def source_of(peer: PeerId) -> Source:
    """Peers here are named by where they come from: "crowd 3"."""
    prefix = peer.split()[0]
    return Source(prefix=prefix, matters=prefix == "member")


def waited_s(peers: dict[PeerId, float]) -> tuple[dict[PeerId, float], list[PeerId]]:
    """How long each peer waits for a turn, by when it comes; and whose turns ended early.

    Whoever is named "member" gives its turn back at once, and everybody else never does.
    """
    waited: dict[PeerId, float] = {}
    cut: list[PeerId] = []

    async def main() -> None:
        turns = ReplyLimiter(2, PLACES, source_of)

        async def one(peer: PeerId, comes_s: float) -> None:
            await trio.sleep(comes_s)
            try:
                async with turns.slot(peer):
                    waited[peer] = trio.current_time() - comes_s - began
                    await trio.sleep(0.0 if source_of(peer).matters else math.inf)
            except PeerFault:
                cut.append(peer)

        began = trio.current_time()
        with trio.move_on_after(120.0):
            async with trio.open_nursery() as nursery:
                for peer, comes_s in peers.items():
                    nursery.start_soon(one, peer, comes_s)
                    await trio.testing.wait_all_tasks_blocked()
        assert turns.count == 0

    run_virtual(main)
    return waited, cut


CROWD = {f"crowd {n}": 0.0 for n in range(PLACES * 3 // 4)}


def test_a_member_needs_not_wait_for_strangers() -> None:
    waited, cut = waited_s({**CROWD, "member 1": 1.0})
    assert waited["member 1"] < 0.1
    assert not cut, "its place was kept"


def test_a_stranger_of_another_prefix_needs_not_wait_for_a_crowd() -> None:
    waited, cut = waited_s({**CROWD, "home 1": 1.0})
    assert waited["home 1"] < 0.1
    assert cut == ["crowd 0"]


def test_a_stranger_of_the_same_prefix_waits_for_a_fair_turn() -> None:
    waited, cut = waited_s({**CROWD, "crowd 99": 1.0})
    assert MIN_SLOT_S - 1.1 < waited["crowd 99"] < MIN_SLOT_S
    assert cut == ["crowd 0"]


def test_nobody_is_cut_while_nobody_waits() -> None:
    assert waited_s(CROWD)[1] == []


class Scene:
    """A holder of a state and of certificates, a member that comes back, and 40 made-up keys."""

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
            # Each place that a stranger may hold is held.
            await trio.sleep(5.0)
            await self.ask(self.member)
            nursery.cancel_scope.cancel()

    async def read_nothing(self, stranger: FakeNetwork) -> None:
        """Ask for as much as one request may, and take none of it."""
        peer = self.holder.network.peer
        state = await stranger.open_stream(peer, state_transfer.PROTOCOL)
        chain = await stranger.open_stream(peer, chain_sync.PROTOCOL)
        wanted = StateRequest(tip=TIP, first=0, count=CHUNKS_PER_REQUEST)
        await state.send_all(frame(msgspec.msgpack.encode(wanted)))
        await chain.send_all(frame(msgspec.msgpack.encode(ChainRequest(run=RUN, first=1))))
        await trio.sleep_forever()

    async def ask(self, network: FakeNetwork) -> None:
        peer, began = self.holder.network.peer, trio.current_time()
        stream = await network.open_stream(peer, state_transfer.PROTOCOL)
        await stream.send_all(
            frame(msgspec.msgpack.encode(StateRequest(tip=TIP, first=0, count=0)))
        )
        reader = FrameReader(stream)
        reply = msgspec.msgpack.decode(await reader.expect_frame(256), type=StateReply)
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
    """It waited 60 s for each answer, or in vain: 8 keys held all 16 places of a state."""
    scene = Scene()
    run_virtual(scene.play)
    assert max(scene.waited_s.values()) < 1.0
