"""Certified results: members that missed rounds replay them, and no power cut loses a certificate.

Real engines play in virtual time.
"""

from __future__ import annotations

import random

import pytest
import trio

from daemon.swarm.chain_sync import unpack_record
from protocol.certificates.certificate import hash_of
from protocol.digest import Digest
from protocol.journal import CaughtUp, RoundCertified, Trained, WorkDropped
from protocol.run.manifest import Manifest
from simulator.fakes.clock import run_virtual
from simulator.fakes.link import LinkModel
from simulator.faults import fault as f
from simulator.playback.player import play
from simulator.scenarios.story import QUICK, Story
from simulator.world.fault_scheduler import FaultScheduler
from simulator.world.world import World

# The length of a round in these worlds, with its exchange.
ROUND_S = QUICK.seconds + 2.0
BEHIND = 1
PARAMETERS = 600_000
# A state of 4.8 MB takes two rounds, the results of a round (320 KB) one second.
DOWNLINK_BPS = 8.0 * 8 * PARAMETERS / (2 * ROUND_S)


def _world(seed: int, nodes: int) -> World:
    return World(
        seed=seed,
        nodes=nodes,
        manifest=Manifest(name="results", task="quadratic", seed=seed, codec="int4", round=QUICK),
        link=lambda one, other: LinkModel(latency_s=0.01, bandwidth_bps=1e8),
        parameters=PARAMETERS,
        samples_per_second=lambda index: 20.0,
        marked=True,
    )


def _counted(world: World, node: int, after_s: float) -> list[float]:
    """When certificates counted a member."""
    peer = world.nodes[node].peer
    return [
        at
        for at, _, event in world.history
        if at > after_s
        and isinstance(event, RoundCertified)
        and event.state_digest
        and peer in {share.peer for share in event.shares}
    ]


def test_member_whose_state_takes_two_rounds_replays_what_it_missed() -> None:
    """Its state was outdated on arrival, each time, and it never came back."""
    world = _world(1, 5)
    back_s = 34.0
    faults = (f.SlowDownlink(node=BEHIND, rate_bps=DOWNLINK_BPS, at_s=1.0, for_s=100.0),)

    async def story() -> None:
        async with world.running():
            world.start()
            FaultScheduler(world, faults).begin()
            await trio.sleep(22.0)
            world.kill(BEHIND)
            await trio.sleep(back_s - 22.0)
            world.start(BEHIND)
            await world.until(
                lambda: bool(_counted(world, BEHIND, back_s)), 3 * ROUND_S, "the member's return"
            )

    run_virtual(story, seed=1)
    assert not world.invariants.broken
    caught_up = [e for e in world.events(CaughtUp, node=BEHIND) if isinstance(e, CaughtUp)]
    assert caught_up
    assert all(event.replayed for event in caught_up)
    back = _counted(world, BEHIND, back_s)[0]
    trained = sum(
        event.seconds
        for event in world.events(Trained, node=BEHIND, after=back_s)
        if isinstance(event, Trained)
    )
    assert trained > 0.75 * (back - back_s), "it trains on meanwhile"


def test_joiner_whose_state_is_outdated_on_arrival_replays_the_rounds_since() -> None:
    world = _world(2, 5)
    began_s = 60.0
    # Near the end of a download every chunk is asked of two holders.
    state_s = 2 * 8 * 8 * PARAMETERS / DOWNLINK_BPS

    async def story() -> None:
        async with world.running():
            world.start(0, 2, 3, 4)
            slow = f.SlowDownlink(node=BEHIND, rate_bps=DOWNLINK_BPS, at_s=1.0, for_s=200.0)
            FaultScheduler(world, (slow,)).begin()
            # More rounds than members keep in memory.
            await trio.sleep(began_s)
            world.start(BEHIND)
            await world.until(
                lambda: bool(_counted(world, BEHIND, began_s)),
                state_s + 3 * ROUND_S,
                "a round with the joiner",
            )

    run_virtual(story, seed=2)
    assert not world.invariants.broken
    caught_up = [e for e in world.events(CaughtUp, node=BEHIND) if isinstance(e, CaughtUp)]
    assert [event.replayed for event in caught_up][:2] == [False, True]


@pytest.mark.parametrize("seed", range(6))
def test_power_cut_of_all_nodes_at_a_random_instant_loses_nothing_certified(seed: int) -> None:
    """Full states are minutes old then: the results on the keepers' disks lead to the last tip."""
    world = _world(10 + seed, 5)
    run = world.manifest.run
    cut_s = 20.0 + random.Random(seed).random() * 2 * ROUND_S
    on_disk: set[Digest] = set()

    def last_on_disk() -> set[Digest]:
        """The last certificate on each disk."""
        chains = [node.medium.chains.get(run, []) for node in world.nodes]
        return {
            hash_of(run, raw) for chain in chains if chain for raw in unpack_record(chain[-1][1])
        }

    async def story() -> None:
        async with world.running():
            world.start()
            await trio.sleep(cut_s)
            for index in range(len(world.nodes)):
                world.kill(index)
            on_disk.update(last_on_disk())
            newest = {
                max(kept.number for kept in node.medium.checkpoints[run]) for node in world.nodes
            }
            assert newest == {1}, "nobody has a newer full state"
            number = max(world.number(i) for i in range(5))
            await trio.sleep(1.0)
            world.start()
            await world.until(
                lambda: min(world.number(i) for i in range(5)) > number, 6 * ROUND_S, "more rounds"
            )

    run_virtual(story, seed=seed)
    assert not world.invariants.broken
    assert on_disk
    for node in world.nodes:
        assert node.engine is not None
        lineage = node.engine.peers.lineage
        store = node.engine.state_store
        assert store is not None
        path = lineage.path(lineage.root, store.tip)
        assert on_disk <= {certificate.hash for certificate in path}


@pytest.mark.parametrize("spread_s", [10.0, 60.0])
@pytest.mark.parametrize("seed", [1, 5, 12])
def test_power_cut_whose_members_return_one_by_one_loses_nothing_certified(
    seed: int, spread_s: float
) -> None:
    """The first ones back had certified anew, without what all had on their disks."""
    cut = f.PowerCut(at_s=35.023, back_s=2.023, spread_s=spread_s)
    story = Story(name="return", nodes=6, seed=seed, seconds=36.0, schedule=(cut,), round=QUICK)
    played = play(story)
    assert played.report is not None
    assert played.report.ok, played.report.reason
    dropped = [e for e in played.world.events(WorkDropped) if isinstance(e, WorkDropped)]
    assert not any("counts at most" in event.reason for event in dropped), "the cap is far away"
