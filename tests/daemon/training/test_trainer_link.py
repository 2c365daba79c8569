"""One task sets a trainer to work that was missing, and a trainer that comes and goes never ends
its node.
"""

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
@pytest.mark.parametrize("both", [False, True])
def test_rounds_without_a_trainer_leave_one_task_that_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, gap_s: float, both: bool
) -> None:
    """The trainer dies at many instants of many rounds.

    One task at most waits for it, and no command meets a trainer in the wrong state.
    """
    played = World(seed=3, nodes=2, manifest=MANIFEST, parameters=64)
    waiting: dict[QuadraticTrainer, int] = {}
    most = [0]
    refused: list[str] = []
    describe, check = QuadraticTrainer.describe, QuadraticTrainer._check_paused

    async def counted(trainer: QuadraticTrainer) -> TaskInfo:
        waiting[trainer] = waiting.get(trainer, 0) + 1
        most[0] = max(most[0], waiting[trainer])
        try:
            return await describe(trainer)
        finally:
            waiting[trainer] -= 1

    def checked(trainer: QuadraticTrainer) -> None:
        if trainer._lane is not None:
            refused.append(f"at {trio.current_time():.2f} s")
        check(trainer)

    monkeypatch.setattr(QuadraticTrainer, "describe", counted)
    monkeypatch.setattr(QuadraticTrainer, "_check_paused", checked)

    async def story() -> None:
        async with played.running():
            played.start()
            await played.until(
                lambda: min(played.number(0), played.number(1)) >= 1, 20, "the first certificate"
            )
            for _ in range(30):
                for node in played.nodes[: 2 if both else 1]:
                    assert node.trainer is not None
                    node.trainer.inner.crash()
                await trio.sleep(gap_s)
            before = max(played.number(0), played.number(1))
            await played.until(
                lambda: min(played.number(0), played.number(1)) >= before + 6,
                60,
                "rounds after the last death",
            )

    run_virtual(story, seed=3)
    assert not played.invariants.broken, played.invariants.broken
    assert most[0] == 1, f"{most[0]} tasks waited for one trainer"
    assert not refused, refused
    last = [
        event
        for event in played.events(RoundCertified, node=1)
        if isinstance(event, RoundCertified)
    ][-1]
    assert {share.peer for share in last.shares} == {node.peer for node in played.nodes}


def test_a_trainer_that_dies_at_work_is_set_to_work_in_the_same_round() -> None:
    """Rounds may be long: the end of one is not waited for."""
    played = World(
        seed=4, nodes=1, manifest=replace(MANIFEST, round=RoundRules(seconds=30.0)), parameters=64
    )

    async def story() -> None:
        async with played.running():
            played.start()
            await trio.sleep(5.0)
            trainer = played.nodes[0].trainer
            assert trainer is not None
            trainer.inner.crash()
            await trio.sleep(RESTART_S + 2.5)
            assert trainer.progress().steps > 0
            await played.until(lambda: bool(played.events(Trained)), 40, "the end of the round")

    run_virtual(story, seed=4)
    (trained,) = played.events(Trained)
    assert isinstance(trained, Trained)
    assert trained.samples > 0


def test_a_trainer_that_comes_back_goes_on_with_its_inner_optimizer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where it died and came back within one exchange, so that no command was lost."""
    played = World(seed=5, nodes=2, manifest=MANIFEST, parameters=64)
    restored: list[Vector] = []
    restore = QuadraticTrainer.restore_inner_state

    async def noted(trainer: QuadraticTrainer, state: Vector) -> None:
        restored.append(state.copy())
        await restore(trainer, state)

    monkeypatch.setattr(QuadraticTrainer, "restore_inner_state", noted)

    async def story() -> None:
        async with played.running():
            played.start()
            await played.until(lambda: played.number(0) >= 3, 30, "the third certificate")
            trainer = played.nodes[0].trainer
            assert trainer is not None
            trainer.inner.crash()
            trainer.inner._up_again_s = 0.0
            await played.until(lambda: played.number(0) >= 6, 30, "the sixth certificate")

    run_virtual(story, seed=5)
    assert restored
    assert all(state.any() for state in restored)


def test_a_trainer_that_is_missing_at_the_end_of_a_round_gets_its_inner_optimizer_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The attempt at the end of a round reaches nobody, and must not count as one that did."""
    played = World(seed=5, nodes=2, manifest=MANIFEST, parameters=64)
    restored: list[Vector] = []
    restore = QuadraticTrainer.restore_inner_state

    async def noted(trainer: QuadraticTrainer, state: Vector) -> None:
        await restore(trainer, state)
        restored.append(state.copy())

    async def story() -> None:
        async with played.running():
            played.start()
            await played.until(lambda: played.number(0) >= 3, 30, "the third certificate")
            monkeypatch.setattr(QuadraticTrainer, "restore_inner_state", noted)
            trainer = played.nodes[0].trainer
            assert trainer is not None
            trainer.inner.crash()
            trainer.inner._up_again_s = trio.current_time() + 4 * ROUND_S
            await played.until(lambda: played.number(0) >= 5, 30, "rounds without a trainer")
            assert not restored
            await played.until(lambda: trainer.progress().steps > 0, 30, "training again")

    run_virtual(story, seed=5)
    assert len(restored) == 1
    assert restored[0].any()


def test_a_node_whose_trainer_stays_away_averages_on_and_says_so_once() -> None:
    """As one whose task was given up: it votes and sums in every round, and has nothing to offer."""
    played = World(seed=6, nodes=2, manifest=MANIFEST, parameters=64)

    async def story() -> None:
        async with played.running():
            played.start()
            await played.until(lambda: played.number(0) >= 3, 30, "the third certificate")
            trainer = played.nodes[0].trainer
            assert trainer is not None
            trainer.inner.crash("its task fails")
            trainer.inner._up_again_s = float("inf")
            await played.until(lambda: played.number(0) >= 12, 90, "the twelfth certificate")

    run_virtual(story, seed=6)
    assert not played.invariants.broken, played.invariants.broken
    rounds = [
        event
        for event in played.events(RoundCertified, node=0)
        if isinstance(event, RoundCertified)
    ]
    assert [event.outcome for event in rounds[-5:]] == ["idle"] * 5
    said = [
        event.message
        for event in played.events(Warned, node=0)
        if isinstance(event, Warned) and event.code == "TRAINER"
    ]
    assert said
    assert len(said) == len(set(said)), "each sentence once"


def test_a_node_leaves_at_once_while_its_disk_is_full() -> None:
    """What waits for the disk to make an offer durable holds the trainer, and leaving needs the
    trainer.
    """
    played = World(seed=5, nodes=2, manifest=MANIFEST, parameters=64)

    async def story() -> None:
        async with played.running():
            played.start()
            await played.until(
                lambda: min(played.number(0), played.number(1)) >= 1, 20, "the first certificate"
            )
            full_at = trio.current_time()
            played.nodes[0].medium.capacity_bytes = 0
            await played.until(
                lambda: bool(played.events(Warned, node=0, after=full_at)), 20, "the disk is full"
            )
            played.finish(0)
            await played.until(lambda: not played.nodes[0].alive, 2.0, "the node left")

    run_virtual(story)
