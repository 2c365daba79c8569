"""Tests that a paused trainer learns nothing, its node takes part, and no work is lost."""

from __future__ import annotations

import pytest
import trio
from msgspec.structs import replace

from protocol.journal import RoundCertified, Trained, TrainingHeld, WorkDropped
from protocol.run.manifest import Group, Manifest, RoundRules
from simulator.fakes.clock import run_virtual
from simulator.world.world import World

ROUND_S = 1.0
MANIFEST = Manifest(
    name="short-rounds",
    task="made up",
    codec="float32",
    group=Group(min_peers=2, max_group=8),
    round=RoundRules(seconds=ROUND_S, ready_s=0.5, scatter_s=2.0, gather_s=2.0, vote_s=1.0),
)


def _shares(world: World, node: int) -> dict[int, int]:
    """The samples of `node` that each certificate counts, by number."""
    peer = world.nodes[node].peer
    return {
        event.number: sum(share.samples for share in event.shares if share.peer == peer)
        for event in world.events(RoundCertified, node=0)
        if isinstance(event, RoundCertified)
    }


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("after_s", [3.05, 3.3, 3.6, 3.95])
def test_hold_pauses_training_at_any_instant_of_a_round(overlap: bool, after_s: float) -> None:
    """The other member trains on, and the paused node votes."""
    manifest = replace(MANIFEST, round=replace(MANIFEST.round, overlap=overlap))
    world = World(seed=5, nodes=2, manifest=manifest, parameters=64)

    async def story() -> None:
        async with world.running():
            world.start()
            await trio.sleep(after_s)
            engine, trainer = world.nodes[1].engine, world.nodes[1].trainer
            assert engine is not None
            assert trainer is not None
            await engine.hold(True)
            # The exchange under way ends first, and what is pending is certified next.
            held_at = world.number(0)
            await world.until(lambda: world.number(0) >= held_at + 3, 30, "rounds without training")
            steps = trainer.progress().steps
            await world.until(lambda: world.number(0) >= held_at + 6, 30, "more rounds")
            assert trainer.progress().steps == steps, "a paused trainer makes no step"
            assert world.number(1) >= held_at + 5, "the paused node goes along"
            counted = _shares(world, 1)
            assert not any(counted.get(held_at + more, 0) for more in (4, 5, 6)), counted
            await engine.hold(False)
            released_at = world.number(0)
            await world.until(
                lambda: any(
                    samples
                    for number, samples in _shares(world, 1).items()
                    if number > released_at + 1
                ),
                30,
                "a certificate that counts the node again",
            )

    run_virtual(story, seed=5)
    assert not world.invariants.broken, world.invariants.broken
    assert not world.events(WorkDropped, node=1)
    held = [event.held for event in world.events(TrainingHeld, node=1)]  # type: ignore[union-attr]
    assert held == [True, False]


def test_hold_before_the_trainer_is_up_begins_paused() -> None:
    world = World(seed=6, nodes=2, manifest=MANIFEST, parameters=64)

    async def story() -> None:
        async with world.running():
            world.start()
            await trio.sleep(0.0)
            engine = world.nodes[1].engine
            assert engine is not None
            assert engine.state_store is None
            await engine.hold(True)
            await trio.sleep(10.0)
            trained = list(world.events(Trained, node=1))
            assert sum(event.samples for event in trained) == 0  # type: ignore[union-attr]
            await engine.hold(False)
            await trio.sleep(10.0)
            trained = list(world.events(Trained, node=1))
            assert sum(event.samples for event in trained) > 0  # type: ignore[union-attr]

    run_virtual(story, seed=6)
    assert not world.invariants.broken, world.invariants.broken


def test_hold_keeps_work_that_was_not_certified_over_a_restart() -> None:
    """A pause writes the state: a node that is killed afterwards loses nothing."""
    world = World(seed=7, nodes=1, manifest=MANIFEST, parameters=64)

    async def story() -> None:
        async with world.running():
            world.start()
            await trio.sleep(2.6)
            engine = world.nodes[0].engine
            assert engine is not None
            await engine.hold(True)
            assert engine.state_store is not None
            pending = engine.state_store.ledger.pending
            assert pending > 0
            world.kill(0)
            world.start(0)
            await trio.sleep(0.5)
            back = world.nodes[0].engine
            assert back is not None
            assert back.state_store is not None
            assert back.state_store.ledger.pending >= pending

    run_virtual(story, seed=7)
