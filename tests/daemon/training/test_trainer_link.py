"""Tests that one task restarts a missing trainer, and that a lost trainer never ends its node."""

from __future__ import annotations

import pytest
import trio
from msgspec.structs import replace

from protocol.averaging.vector_layout import Vector
from protocol.journal import RoundCertified, Trained, Warned
from protocol.ports.trainer import TaskInfo
from protocol.run.manifest import Group, Manifest, RoundRules
from simulator.fakes.clock import run_virtual
from simulator.fakes.trainer import RESTART_S, QuadraticTrainer
from simulator.world.world import World

ROUND_S = 1.0
MANIFEST = Manifest(
    name="short-rounds",
    task="made up",
    codec="float32",
    group=Group(min_peers=2, max_group=8),
    round=RoundRules(seconds=ROUND_S, ready_s=0.5, scatter_s=2.0, gather_s=2.0, vote_s=1.0),
)


@pytest.mark.parametrize("gap_s", [0.37, 0.9, 2.3])
@pytest.mark.parametrize("both_die", [False, True])
def test_trainer_link_has_one_task_that_waits_for_a_missing_trainer(
    monkeypatch: pytest.MonkeyPatch, gap_s: float, both_die: bool
) -> None:
    """The trainer dies at many instants of many rounds.

    At most one task waits for it, and no command reaches a trainer in the wrong state.
    """
    world = World(seed=3, nodes=2, manifest=MANIFEST, parameters=64)
    waiting: dict[QuadraticTrainer, int] = {}
    most_waiting = [0]
    refused: list[str] = []
    describe, check = QuadraticTrainer.describe, QuadraticTrainer._check_paused

    async def counted(trainer: QuadraticTrainer) -> TaskInfo:
        waiting[trainer] = waiting.get(trainer, 0) + 1
        most_waiting[0] = max(most_waiting[0], waiting[trainer])
        try:
            return await describe(trainer)
        finally:
            waiting[trainer] -= 1

    def checked(trainer: QuadraticTrainer) -> None:
        if trainer._clock.running:
            refused.append(f"at {trio.current_time():.2f} s")
        check(trainer)

    monkeypatch.setattr(QuadraticTrainer, "describe", counted)
    monkeypatch.setattr(QuadraticTrainer, "_check_paused", checked)

    async def story() -> None:
        async with world.running():
            world.start()
            await world.until(
                lambda: min(world.number(0), world.number(1)) >= 1, 20, "the first certificate"
            )
            for _ in range(30):
                for node in world.nodes[: 2 if both_die else 1]:
                    assert node.trainer is not None
                    node.trainer.inner.crash()
                await trio.sleep(gap_s)
            before = max(world.number(0), world.number(1))
            await world.until(
                lambda: min(world.number(0), world.number(1)) >= before + 6,
                60,
                "rounds after the last death",
            )

    run_virtual(story, seed=3)
    assert not world.invariants.broken, world.invariants.broken
    assert most_waiting[0] == 1, f"{most_waiting[0]} tasks waited for one trainer"
    assert not refused, refused
    last = [
        event for event in world.events(RoundCertified, node=1) if isinstance(event, RoundCertified)
    ][-1]
    assert {share.peer for share in last.shares} == {node.peer for node in world.nodes}


def test_trainer_link_restarts_a_trainer_in_the_round_in_which_it_died() -> None:
    """Rounds may be long, so the link does not wait for the end of a round."""
    world = World(
        seed=4, nodes=1, manifest=replace(MANIFEST, round=RoundRules(seconds=30.0)), parameters=64
    )

    async def story() -> None:
        async with world.running():
            world.start()
            await trio.sleep(5.0)
            trainer = world.nodes[0].trainer
            assert trainer is not None
            trainer.inner.crash()
            await trio.sleep(RESTART_S + 2.5)
            assert trainer.progress().steps > 0
            await world.until(lambda: bool(world.events(Trained)), 40, "the end of the round")

    run_virtual(story, seed=4)
    (trained,) = world.events(Trained)
    assert isinstance(trained, Trained)
    assert trained.samples > 0


def test_trainer_link_restores_the_inner_optimizer_of_a_restarted_trainer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The trainer may die and return within one exchange, so that no command is lost."""
    world = World(seed=5, nodes=2, manifest=MANIFEST, parameters=64)
    restored: list[Vector] = []
    restore = QuadraticTrainer.restore_inner_state

    async def recorded(trainer: QuadraticTrainer, state: Vector) -> None:
        restored.append(state.copy())
        await restore(trainer, state)

    monkeypatch.setattr(QuadraticTrainer, "restore_inner_state", recorded)

    async def story() -> None:
        async with world.running():
            world.start()
            await world.until(lambda: world.number(0) >= 3, 30, "the third certificate")
            trainer = world.nodes[0].trainer
            assert trainer is not None
            trainer.inner.crash()
            trainer.inner._up_again_s = 0.0
            await world.until(lambda: world.number(0) >= 6, 30, "the sixth certificate")

    run_virtual(story, seed=5)
    assert restored
    assert all(state.any() for state in restored)


def test_trainer_link_restores_the_inner_optimizer_after_a_failed_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The trainer is missing at the end of a round. That attempt must not count as a success."""
    world = World(seed=5, nodes=2, manifest=MANIFEST, parameters=64)
    restored: list[Vector] = []
    restore = QuadraticTrainer.restore_inner_state

    async def recorded(trainer: QuadraticTrainer, state: Vector) -> None:
        await restore(trainer, state)
        restored.append(state.copy())

    async def story() -> None:
        async with world.running():
            world.start()
            await world.until(lambda: world.number(0) >= 3, 30, "the third certificate")
            monkeypatch.setattr(QuadraticTrainer, "restore_inner_state", recorded)
            trainer = world.nodes[0].trainer
            assert trainer is not None
            trainer.inner.crash()
            trainer.inner._up_again_s = trio.current_time() + 4 * ROUND_S
            await world.until(lambda: world.number(0) >= 5, 30, "rounds without a trainer")
            assert not restored
            await world.until(lambda: trainer.progress().steps > 0, 30, "training again")

    run_virtual(story, seed=5)
    assert len(restored) == 1
    assert restored[0].any()


def test_a_node_without_a_trainer_goes_on_averaging_and_warns_once() -> None:
    """The task failed for good. The node votes and sums in every round, and offers nothing."""
    world = World(seed=6, nodes=2, manifest=MANIFEST, parameters=64)

    async def story() -> None:
        async with world.running():
            world.start()
            await world.until(lambda: world.number(0) >= 3, 30, "the third certificate")
            trainer = world.nodes[0].trainer
            assert trainer is not None
            trainer.inner.crash("its task fails")
            trainer.inner._up_again_s = float("inf")
            await world.until(lambda: world.number(0) >= 12, 90, "the twelfth certificate")

    run_virtual(story, seed=6)
    assert not world.invariants.broken, world.invariants.broken
    rounds = [
        event for event in world.events(RoundCertified, node=0) if isinstance(event, RoundCertified)
    ]
    assert [event.outcome for event in rounds[-5:]] == ["idle"] * 5
    warnings = [
        event.message
        for event in world.events(Warned, node=0)
        if isinstance(event, Warned) and event.code == "TRAINER"
    ]
    assert warnings
    assert len(warnings) == len(set(warnings)), "each warning once"


def test_a_node_with_a_full_disk_leaves_at_once() -> None:
    """The offer that waits for the disk has the trainer's lock, which leaving needs."""
    world = World(seed=5, nodes=2, manifest=MANIFEST, parameters=64)

    async def story() -> None:
        async with world.running():
            world.start()
            await world.until(
                lambda: min(world.number(0), world.number(1)) >= 1, 20, "the first certificate"
            )
            full_at = trio.current_time()
            world.nodes[0].medium.capacity_bytes = 0
            await world.until(
                lambda: bool(world.events(Warned, node=0, after=full_at)), 20, "the disk is full"
            )
            world.finish(0)
            await world.until(lambda: not world.nodes[0].alive, 2.0, "the node left")

    run_virtual(story)


def test_offer_does_not_wait_for_the_copy_of_the_inner_optimizer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The copy is as long as two vectors of the model. It once delayed every exchange."""
    world = World(seed=7, nodes=2, manifest=MANIFEST, parameters=64)
    copy_s = 0.4
    inner_state = QuadraticTrainer.inner_state

    async def slow(trainer: QuadraticTrainer) -> Vector:
        await trio.sleep(copy_s)
        return await inner_state(trainer)

    monkeypatch.setattr(QuadraticTrainer, "inner_state", slow)

    async def story() -> None:
        async with world.running():
            world.start()
            await world.until(lambda: world.number(0) >= 4, 30, "the fourth certificate")

    run_virtual(story, seed=7)
    certified = [event for event in world.events(RoundCertified, node=0) if event.phase_seconds]
    assert len(certified) >= 4
    assert all(event.phase_seconds["offer"] < copy_s / 2 for event in certified)
    store = world.nodes[0].engine.state_store if world.nodes[0].engine else None
    assert store is not None
    assert store.inner.vector.any()
