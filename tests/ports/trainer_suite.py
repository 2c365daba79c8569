"""What every `Trainer` must do. The fake and the real trainer run exactly these tests.

A test module subclasses `TrainerSuite` and provides the fixture `make_trainer`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import numpy as np
import pytest
import trio

from protocol.averaging.vector_layout import Vector
from protocol.ports.trainer import Lane, Trainer, TrainerLost, Work

TrainerFactory = Callable[[], AbstractAsyncContextManager[Trainer]]
"""Each call makes a running trainer of the same task, seed and peer."""

# A worker process that imports its framework on a busy machine takes many seconds.
TIMEOUT_S = 90.0
LANE = Lane(base=0, index=1, stride=3)
OTHER_LANE = Lane(base=512, index=0, stride=2)


async def anchor_for(trainer: Trainer, salt: int = 0) -> Vector:
    """Start parameters: small, and the same for every trainer of the task."""
    info = await trainer.describe()
    generator = np.random.Generator(np.random.PCG64(7 + salt))
    return (generator.random(info.parameters, dtype=np.float32) - np.float32(0.5)) * np.float32(0.1)


async def steps_done(trainer: Trainer, steps: int) -> None:
    """Wait until the current stretch has that many steps."""
    while trainer.progress().steps < steps:
        await trio.sleep(0.01)


async def collected(trainer: Trainer) -> tuple[Work, Vector]:
    """`collect` with its general checks, and a copy of its delta.

    The next call overwrites the delta.
    """
    work = await trainer.collect()
    assert work.delta.dtype == np.float32
    assert work.delta.ndim == 1
    assert np.all(np.isfinite(work.delta))
    assert work.seconds >= 0.0
    assert (work.samples > 0) == (work.steps > 0)
    if work.samples == 0:
        assert work.loss is None
        assert not np.any(work.delta), "without a step nothing moves"
    else:
        assert work.loss is not None
        assert np.isfinite(work.loss)
    return work, work.delta.copy()


class TrainerSuite:
    """Inherit, and provide `make_trainer`."""

    async def test_describes_its_task(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                info = await trainer.describe()
                assert info.parameters == sum(int(np.prod(spec.shape)) for spec in info.specs) > 0
                assert all(
                    spec.init in ("zeros", "ones", "uniform") and spec.bound >= 0.0
                    for spec in info.specs
                )
                assert info.dataset_size > 0
                assert info.threads >= 1
                assert info.device
                assert [(part.name, part.shape) for part in info.task.parameters] == [
                    (spec.name, spec.shape) for spec in info.specs
                ]
                assert info.task.dataset_size == info.dataset_size
                assert info.task.source
                assert await trainer.describe() == info

    async def test_trains_by_itself_and_hands_over_its_work(
        self, make_trainer: TrainerFactory
    ) -> None:
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                await trainer.train(anchor, LANE)
                await steps_done(trainer, 3)
                assert trainer.progress().samples > 0
                work, delta = await collected(trainer)
                assert work.steps >= 3
                assert work.samples >= work.steps
                assert delta.shape == anchor.shape
                assert np.any(delta)

    async def test_no_steps_are_exactly_nothing(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                await trainer.train(anchor, LANE, max_steps=0)
                work, _ = await collected(trainer)
                assert (work.samples, work.steps) == (0, 0)

    async def test_stops_after_max_steps(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                await trainer.train(await anchor_for(trainer), LANE, max_steps=4)
                await steps_done(trainer, 4)
                work, _ = await collected(trainer)
                assert work.steps == 4

    async def test_collect_leaves_it_paused(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                await trainer.train(await anchor_for(trainer), LANE)
                await steps_done(trainer, 1)
                await collected(trainer)
                again, _ = await collected(trainer)
                assert again.samples == 0

    async def test_deltas_add_up_to_the_whole_displacement(
        self, make_trainer: TrainerFactory
    ) -> None:
        """Three resumed stretches equal one stretch of as many steps at the same positions."""
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                await trainer.train(anchor, LANE, max_steps=2)
                await steps_done(trainer, 2)
                _, first = await collected(trainer)
                await trainer.resume(LANE, max_steps=3)
                await steps_done(trainer, 3)
                work, second = await collected(trainer)
                assert work.steps == 3
                assert np.any(second)
                assert not np.array_equal(first, second)
                # The trainer is at anchor - first - second. Training from exactly there without a
                # step must be nothing. One step from there must continue like one step from here.
                state = await trainer.inner_state()
                await trainer.resume(OTHER_LANE, max_steps=1)
                await steps_done(trainer, 1)
                _, from_here = await collected(trainer)
                await trainer.restore_inner_state(state)
                await trainer.train((anchor - first) - second, OTHER_LANE, max_steps=1)
                await steps_done(trainer, 1)
                _, from_there = await collected(trainer)
                # The two starts differ by float32 rounding alone. They are compared as a whole:
                # where a gradient is only rounding noise, an inner optimizer that normalizes makes
                # a full step of it, in either direction.
                assert np.linalg.norm(from_here - from_there) <= 0.05 * np.linalg.norm(from_here)

    async def test_train_takes_the_anchor_exactly(self, make_trainer: TrainerFactory) -> None:
        """Earlier work leaves no trace in the parameters, only in the inner optimizer's state."""
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                state = await self._fresh_state(trainer, anchor)
                await trainer.restore_inner_state(state)
                await trainer.train(anchor, LANE, max_steps=2)
                await steps_done(trainer, 2)
                _, expected = await collected(trainer)
                await trainer.train(await anchor_for(trainer, salt=1), OTHER_LANE, max_steps=3)
                await steps_done(trainer, 3)
                # The same straight out of training, without a collect.
                await trainer.train(anchor, LANE, max_steps=0)
                nothing, _ = await collected(trainer)
                assert nothing.samples == 0
                await trainer.restore_inner_state(state)
                await trainer.train(anchor, LANE, max_steps=2)
                await steps_done(trainer, 2)
                _, again = await collected(trainer)
                assert again.tobytes() == expected.tobytes()

    async def test_same_anchor_lane_and_steps_give_the_same_bytes(
        self, make_trainer: TrainerFactory
    ) -> None:
        results = []
        with trio.fail_after(TIMEOUT_S):
            for _ in range(2):
                async with make_trainer() as trainer:
                    await trainer.train(await anchor_for(trainer), LANE, max_steps=3)
                    await steps_done(trainer, 3)
                    work, delta = await collected(trainer)
                    results.append((work.samples, work.loss, delta.tobytes()))
        assert results[0] == results[1]

    async def test_another_lane_draws_other_samples(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                state = await self._fresh_state(trainer, anchor)
                deltas = []
                for lane in (LANE, OTHER_LANE):
                    await trainer.restore_inner_state(state)
                    await trainer.train(anchor, lane, max_steps=1)
                    await steps_done(trainer, 1)
                    deltas.append((await collected(trainer))[1])
                assert not np.array_equal(deltas[0], deltas[1])

    async def test_lane_continues_where_it_was_left(self, make_trainer: TrainerFactory) -> None:
        """A resumed lane draws the same samples as one given again at its position.

        No sample is drawn twice.
        """
        deltas = []
        with trio.fail_after(TIMEOUT_S):
            for way in ("resumed", "behind", "from its beginning"):
                async with make_trainer() as trainer:
                    anchor = await anchor_for(trainer)
                    await trainer.train(anchor, LANE, max_steps=2)
                    await steps_done(trainer, 2)
                    work, first = await collected(trainer)
                    state = await trainer.inner_state()
                    lane = LANE if way == "from its beginning" else LANE.after(work.samples)
                    if way == "resumed":
                        await trainer.resume(LANE, max_steps=1)
                    else:
                        await trainer.restore_inner_state(state)
                        await trainer.train(anchor - first, lane, max_steps=1)
                    await steps_done(trainer, 1)
                    deltas.append((await collected(trainer))[1])
        resumed, behind, again = deltas
        apart = np.linalg.norm(resumed - behind)
        assert apart <= 0.05 * np.linalg.norm(resumed), (
            "the two starts differ by float32 rounding alone"
        )
        assert np.linalg.norm(resumed - again) > 4 * apart

    async def test_inner_state_survives_another_trainer(self, make_trainer: TrainerFactory) -> None:
        """A trainer that is restarted with the saved state continues as if nothing had happened."""
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                await trainer.train(anchor, LANE, max_steps=3)
                await steps_done(trainer, 3)
                await collected(trainer)
                state = await trainer.inner_state()
                assert state.dtype == np.float32
                kept = state.copy()
                await trainer.train(anchor, OTHER_LANE, max_steps=2)
                await steps_done(trainer, 2)
                _, expected = await collected(trainer)
                assert state.tobytes() == kept.tobytes(), "inner_state returns a copy"
            async with make_trainer() as restarted:
                await restarted.describe()
                await restarted.restore_inner_state(kept)
                assert (await restarted.inner_state()).tobytes() == kept.tobytes()
                await restarted.train(anchor, OTHER_LANE, max_steps=2)
                await steps_done(restarted, 2)
                _, again = await collected(restarted)
                assert again.tobytes() == expected.tobytes()

    async def test_state_that_does_not_fit_is_refused(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                state = await self._fresh_state(trainer, await anchor_for(trainer))
                with pytest.raises(ValueError):  # noqa: PT011
                    await trainer.restore_inner_state(np.zeros(state.size + 1, np.float32))
                assert (await trainer.inner_state()).tobytes() == state.tobytes()

    async def test_command_in_the_wrong_state_is_refused_and_changes_nothing(
        self, make_trainer: TrainerFactory
    ) -> None:
        """The caller may be behind: a refusal must never cost more than the command."""
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                with pytest.raises(TrainerLost):
                    await trainer.resume(LANE)
                state = await self._fresh_state(trainer, anchor)
                await trainer.train(anchor, LANE, max_steps=1 << 20)
                with pytest.raises(TrainerLost):
                    await trainer.restore_inner_state(state)
                before = trainer.progress().steps
                await steps_done(trainer, before + 2)
                work, _ = await collected(trainer)
                assert work.steps >= before + 2
                assert trainer.restarts == 0

    async def test_restarts_is_zero_without_a_crash(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                await trainer.describe()
                assert trainer.restarts == 0

    async def _fresh_state(self, trainer: Trainer, anchor: Vector) -> Vector:
        await trainer.train(anchor, LANE, max_steps=0)
        await trainer.collect()
        return await trainer.inner_state()
