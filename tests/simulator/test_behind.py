"""Nodes that are behind the others: real engines in virtual time."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import trio
from msgspec.structs import replace

from daemon.swarm.frames import FrameReader, frame
from daemon.swarm.piece_server import PieceReply, PieceRequest
from daemon.swarm.state_transfer import PROTOCOL
from protocol.averaging.outer_step import state_digest, state_leaves
from protocol.averaging.vector_layout import STATE_CHUNK_BYTES, chunk_count
from protocol.certificates.tip import genesis
from protocol.digest import digest
from protocol.journal import CaughtUp, PhaseEntered, RoundCertified, Trained
from protocol.ports.byte_stream import ByteStream
from protocol.round.fetch_phase import MISSED_ROUNDS
from protocol.run.manifest import Group, Manifest
from simulator.fakes.clock import run_virtual
from simulator.fakes.link import LinkModel
from simulator.fakes.network import FakeNetwork
from simulator.scenarios.story import QUICK
from simulator.world.world import World
from tests.protocol.rounds import Made, people

# The length of a round in these worlds, with its exchange.
ROUND_S = QUICK.seconds + 2.0
BEHIND = 1


def test_member_with_a_slow_download_comes_back() -> None:
    """A download from one holder takes three rounds, so several holders must serve it.

    Once each newer certificate restarted the download from one holder, with the trainer idle, and
    the member never came back.
    """
    killed_s, back_s = 22.0, 34.0
    world = World(
        seed=1,
        nodes=6,
        manifest=Manifest(name="behind", task="quadratic", seed=1, codec="int8", round=QUICK),
        # The state of 4.8 MB takes 19 s between any two nodes.
        link=lambda one, other: LinkModel(latency_s=0.01, bandwidth_bps=2e6),
        parameters=600_000,
        samples_per_second=lambda index: 20.0,
        marked=True,
    )
    peer = world.nodes[BEHIND].peer

    def counted() -> list[float]:
        """When certificates counted the member after its return."""
        return [
            at
            for at, _, event in world.history
            if at > back_s
            and isinstance(event, RoundCertified)
            and event.state_digest
            and peer in {share.peer for share in event.shares}
        ]

    async def story() -> None:
        async with world.running():
            world.start()
            await trio.sleep(killed_s)
            world.kill(BEHIND)
            await trio.sleep(back_s - killed_s)
            world.start(BEHIND)
            await world.until(
                lambda: bool(counted()), 4 * ROUND_S, "a round with the one that was behind"
            )

    run_virtual(story, seed=1)
    assert not world.invariants.broken
    back = counted()[0]
    assert back - back_s < 2.5 * ROUND_S
    # It trains on meanwhile, except during its exchanges.
    trained = sum(
        event.seconds
        for event in world.events(Trained, node=BEHIND, after=back_s)
        if isinstance(event, Trained)
    )
    assert trained > 0.75 * (back - back_s)
    fetched = [
        event.seconds
        for event in world.events(CaughtUp, node=BEHIND)
        if isinstance(event, CaughtUp)
    ]
    assert fetched
    assert max(fetched) < 19.2 / 3, "from several holders at once"


def test_certificate_whose_state_nobody_serves_stops_no_rounds() -> None:
    """Two keys are enough to forge such a certificate.

    Once it held both nodes of a run in fetch for 48 s and more, without training.
    """
    manifest = Manifest(
        name="unserved", task="quadratic", seed=3, round=QUICK, group=Group(min_peers=2)
    )
    world = World(seed=3, nodes=2, manifest=manifest, parameters=3 * 4096)
    run = world.manifest.run

    async def story() -> None:
        async with world.running():
            world.start()
            await world.until(
                lambda: min(world.number(0), world.number(1)) >= 1, 30.0, "the first round"
            )
            store = world.nodes[0].engine.state_store if world.nodes[0].engine else None
            assert store is not None
            tip = store.tip
            # One after the other: a new one each time that the nodes have given up the last.
            for number in range(6):
                strangers = people(2 + number)
                led = replace(tip, members=tuple(stranger.peer for stranger in strangers))
                forged = Made(strangers, led, run=run, manifest=manifest, chunks=3, view=7 + number)
                for node in world.nodes:
                    assert node.engine is not None
                    node.engine.peers.follower.receive_certificate(forged.raw())
                await trio.sleep(3.0)
            await world.until(lambda: min(world.number(0), world.number(1)) >= 6, 60.0, "rounds")

    run_virtual(story, seed=3)
    assert not world.invariants.broken
    times = [
        at
        for at, index, event in world.history
        if index == 0 and isinstance(event, RoundCertified) and event.state_digest
    ]
    assert (
        max(later - earlier for earlier, later in pairwise(times)) < ROUND_S + QUICK.ready_s + 1.0
    )
    assert (
        sum(
            isinstance(event, PhaseEntered) and event.phase == "fetch" and index == 0
            for _, index, event in world.history
        )
        == 1
    )
    assert genesis(run).hash not in world.tips()


def test_state_served_a_chunk_in_nine_seconds_stops_few_rounds() -> None:
    """Once a forged certificate held a node in fetch for 40 minutes, as long as its chunks came."""
    manifest = Manifest(
        name="slow", task="quadratic", seed=3, round=QUICK, group=Group(min_peers=2)
    )
    world = World(seed=3, nodes=2, manifest=manifest, parameters=12 * STATE_CHUNK_BYTES // 4)
    run, parameters = world.manifest.run, 12 * STATE_CHUNK_BYTES // 4
    ones = np.ones(parameters, np.float32)
    leaves = state_leaves(ones, ones)
    chunk = ones[: STATE_CHUNK_BYTES // 4].tobytes()
    sent: list[float] = []

    async def give(stream: ByteStream) -> None:
        """Send the leaves at once, and then a chunk every 9 s."""
        reader = FrameReader(stream)
        while (data := await reader.next_frame(256)) is not None:
            request = msgspec.msgpack.decode(data, type=PieceRequest)
            await trio.sleep(9.0 if request.count else 0.0)
            answer = chunk if request.count else b"".join(leaves)
            reply = msgspec.msgpack.encode(PieceReply(held=True, size=len(answer)))
            await stream.send_all(frame(reply) + answer)
            sent.append(trio.current_time())

    async def live(network: FakeNetwork, *, task_status: trio.TaskStatus[None]) -> None:
        network.serve(PROTOCOL, give)
        async with network.running():
            task_status.started()
            await trio.sleep_forever()

    async def story() -> None:
        async with world.running(), trio.open_nursery() as nursery:
            forger = world.swarm.network(digest(b"person", bytes([0])))
            await nursery.start(live, forger)
            world.start()
            await world.until(
                lambda: min(world.number(0), world.number(1)) >= 1, 30.0, "the first round"
            )
            store = world.nodes[0].engine.state_store if world.nodes[0].engine else None
            assert store is not None
            strangers = people(2)
            assert forger.peer in {stranger.peer for stranger in strangers}
            led = replace(store.tip, members=tuple(stranger.peer for stranger in strangers))
            made = Made(
                strangers, led, run=run, manifest=manifest, chunks=chunk_count(parameters), view=7
            )
            made.vote = replace(made.vote, state=state_digest(ones, ones))
            for node in world.nodes:
                assert node.engine is not None
                node.engine.peers.follower.receive_certificate(made.raw())
            await trio.sleep(90.0)
            nursery.cancel_scope.cancel()

    run_virtual(story, seed=3)
    assert not world.invariants.broken
    assert len(sent) > 5, "both nodes were given a chunk in 9 s while they waited"
    missed_s = MISSED_ROUNDS * (QUICK.seconds + QUICK.ready_s)
    times = [
        at
        for at, index, event in world.history
        if index == 0 and isinstance(event, RoundCertified) and event.state_digest
    ]
    assert max(later - earlier for earlier, later in pairwise(times)) < missed_s + 2 * ROUND_S
    assert len(times) > (90.0 - missed_s) / ROUND_S - 3
