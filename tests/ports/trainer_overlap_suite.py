"""What every `Trainer` must do while it hands over, shifts and trains on.

A test module subclasses `TrainerOverlapSuite` and provides the fixture `make_trainer`.
"""

from __future__ import annotations

import numpy as np
import pytest
import trio

from protocol.averaging.vector_layout import Vector
from protocol.ports.trainer import Lane, Trainer, TrainerLost, Work
from tests.ports.trainer_suite import (
    LANE,
    OTHER_LANE,
    TIMEOUT_S,
    TrainerFactory,
    anchor_for,
    collected,
    steps_done,
)

FOREVER = 1 << 20


async def handed_over(trainer: Trainer, lane: Lane) -> tuple[Work, Vector]:
    """`hand_over` with its general checks, and a copy of its delta."""
    work = await trainer.hand_over(lane)
    assert work.delta.dtype == np.float32
    assert np.all(np.isfinite(work.delta))
    assert (work.samples > 0) == (work.steps > 0) == (work.loss is not None)
    assert np.any(work.delta) == (work.steps > 0)
    return work, work.delta.copy()


def close(a: Vector, b: Vector) -> bool:
    """Whether two displacements differ by float32 rounding alone."""
    return bool(np.linalg.norm(a - b) <= 1e-3 * np.linalg.norm(b))


class TrainerOverlapSuite:
    """Inherit, and provide `make_trainer`."""

    async def test_hand_over_trains_on(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                await trainer.train(await anchor_for(trainer), LANE)
                await steps_done(trainer, 2)
                first, _ = await handed_over(trainer, OTHER_LANE)
                assert first.steps >= 2
                await steps_done(trainer, first.steps + 2)
                work, _ = await collected(trainer)
                assert work.steps >= 2

    async def test_hand_overs_add_up_to_one_collect(self, make_trainer: TrainerFactory) -> None:
        """Handing over changes neither the samples that are drawn nor the steps that are made."""
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                await trainer.train(anchor, LANE, max_steps=0)
                state = await trainer.inner_state()
                await trainer.train(anchor, LANE, max_steps=8)
                await steps_done(trainer, 8)
                expected, whole = await collected(trainer)
                await trainer.restore_inner_state(state)
                await trainer.train(anchor, LANE, max_steps=8)
                works = []
                for steps in (1, 3, 5, 8):
                    await steps_done(trainer, steps)
                    works.append(await handed_over(trainer, LANE))
                works.append(await collected(trainer))
                assert sum(work.steps for work, _ in works) == 8
                assert sum(work.samples for work, _ in works) == expected.samples
                assert close(np.sum([delta for _, delta in works], axis=0), whole)

    async def test_hand_over_of_nothing_is_exactly_nothing(
        self, make_trainer: TrainerFactory
    ) -> None:
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                await trainer.train(await anchor_for(trainer), LANE, max_steps=3)
                await steps_done(trainer, 3)
                assert (await handed_over(trainer, LANE))[0].steps == 3
                for _ in range(2):
                    assert (await handed_over(trainer, LANE))[0].samples == 0
                assert (await collected(trainer))[0].samples == 0

    async def test_cancelled_hand_over_loses_nothing(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                await trainer.train(await anchor_for(trainer), LANE, max_steps=5)
                await steps_done(trainer, 5)
                handed: list[Work] = []

                async def hand_over() -> None:
                    handed.append(await trainer.hand_over(LANE))

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(hand_over)
                    await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()
                work, _ = await handed_over(trainer, LANE)
                assert work.steps + sum(each.steps for each in handed) == 5

    async def test_shift_without_new_steps_equals_train(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                local = await anchor_for(trainer, salt=1)
                await trainer.train(anchor, LANE, max_steps=2)
                await steps_done(trainer, 2)
                await handed_over(trainer, LANE)
                state = (await trainer.inner_state()).copy()
                await trainer.shift(local, OTHER_LANE, max_steps=2)
                await steps_done(trainer, 2)
                _, shifted = await collected(trainer)
                await trainer.restore_inner_state(state)
                await trainer.train(local, OTHER_LANE, max_steps=2)
                await steps_done(trainer, 2)
                _, trained = await collected(trainer)
                assert shifted.tobytes() == trained.tobytes()

    async def test_shift_keeps_the_steps_since_the_hand_over(
        self, make_trainer: TrainerFactory
    ) -> None:
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                await trainer.train(anchor, LANE, max_steps=0)
                state = (await trainer.inner_state()).copy()
                await trainer.train(anchor, LANE, max_steps=4)
                await steps_done(trainer, 4)
                _, expected = await collected(trainer)
                await trainer.restore_inner_state(state)
                await trainer.train(anchor, LANE, max_steps=4)
                await steps_done(trainer, 4)
                # Two shifts in a row: the second one moves from where the first one led.
                await trainer.shift(await anchor_for(trainer, salt=1), LANE, max_steps=0)
                await trainer.shift(await anchor_for(trainer, salt=2), LANE, max_steps=0)
                work, delta = await handed_over(trainer, LANE)
                assert work.steps == 4
                assert close(delta, expected)

    async def test_shift_in_the_midst_of_training_loses_no_step(
        self, make_trainer: TrainerFactory
    ) -> None:
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                await trainer.train(await anchor_for(trainer), LANE, max_steps=FOREVER)
                handed = 0
                for salt in range(1, 4):
                    await steps_done(trainer, 2)
                    work, _ = await handed_over(trainer, OTHER_LANE)
                    handed += work.steps
                    await trainer.shift(await anchor_for(trainer, salt), LANE, max_steps=FOREVER)
                    assert trainer.progress().steps <= 2, "a shift begins a stretch"
                # A hand-over right behind a shift, before the step's end, is not a special case.
                work, delta = await handed_over(trainer, OTHER_LANE)
                await trainer.shift(await anchor_for(trainer, 5), LANE, max_steps=2)
                await steps_done(trainer, 2)
                last, _ = await collected(trainer)
                assert last.steps >= 2
                assert handed >= 6
                assert np.linalg.norm(delta) < 0.5 * np.linalg.norm(await anchor_for(trainer, 3)), (
                    "the way to the anchor is no part of the work"
                )

    async def test_shift_lets_a_trainer_that_reached_its_limit_train_again(
        self, make_trainer: TrainerFactory
    ) -> None:
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                await trainer.train(anchor, LANE, max_steps=1)
                await steps_done(trainer, 1)
                await trainer.shift(anchor, OTHER_LANE, max_steps=2)
                await steps_done(trainer, 2)
                assert (await collected(trainer))[0].steps == 3

    async def test_limited_lane_begins_again(self, make_trainer: TrainerFactory) -> None:
        """A lane of one batch gives the same samples to each step, and so does its only batch."""
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                await trainer.train(anchor, LANE, max_steps=1)
                await steps_done(trainer, 1)
                batch = (await collected(trainer))[0].samples
                once = Lane(base=LANE.base, index=LANE.index, stride=LANE.stride, limit=batch)
                deltas = []
                for lane in (once, once.after(batch), LANE.after(batch)):
                    await trainer.train(anchor, LANE, max_steps=0)
                    await collected(trainer)
                    await trainer.restore_inner_state(np.zeros_like(await trainer.inner_state()))
                    # The first step is that of `LANE` in each case.
                    await trainer.train(anchor, LANE, max_steps=1)
                    await steps_done(trainer, 1)
                    await collected(trainer)
                    await trainer.resume(lane, max_steps=1)
                    await steps_done(trainer, 1)
                    deltas.append((await collected(trainer))[1])
                assert np.array_equal(deltas[0], deltas[1])
                assert not np.array_equal(deltas[0], deltas[2])

    async def test_hand_over_and_shift_need_an_anchor(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                with pytest.raises(TrainerLost):
                    await trainer.hand_over(LANE)
                with pytest.raises(TrainerLost):
                    await trainer.shift(anchor, LANE)
                await trainer.train(anchor, LANE, max_steps=1)
                await steps_done(trainer, 1)
                assert (await collected(trainer))[0].steps == 1
                assert trainer.restarts == 0

    async def test_inner_state_is_copied_while_training(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                await trainer.train(anchor, LANE, max_steps=FOREVER)
                await steps_done(trainer, 2)
                early = (await trainer.inner_state()).copy()
                seen = trainer.progress().steps
                await steps_done(trainer, seen + 2)
                late = (await trainer.inner_state()).copy()
                assert np.any(early)
                assert not np.array_equal(early, late)
                assert (await collected(trainer))[0].steps >= seen + 2
