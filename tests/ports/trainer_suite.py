"""What every `Trainer` must do, whoever implements it.

The fake and the worker process run exactly these tests.

A test module subclasses `TrainerSuite` and gives a fixture `make_trainer` that returns a
`TrainerFactory` for a tiny task. Progress has no event, so it is polled; nothing here measures
time.
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
"""Each call gives a running trainer of the same task, seed and peer."""

# A worker process that imports its framework on a busy machine takes many seconds.
PATIENCE_S = 90.0
LANE = Lane(base=0, index=1, stride=3)
OTHER_LANE = Lane(base=512, index=0, stride=2)


async def anchor_for(trainer: Trainer, salt: int = 0) -> Vector:
    """Parameters to start from: small, and the same for every trainer of the task."""
    info = await trainer.describe()
    generator = np.random.Generator(np.random.PCG64(7 + salt))
    return (generator.random(info.parameters, dtype=np.float32) - np.float32(0.5)) * np.float32(0.1)


async def steps_done(trainer: Trainer, steps: int) -> None:
    """Wait until the current stretch has that many steps."""
    while trainer.progress().steps < steps:
        await trio.sleep(0.01)


async def collected(trainer: Trainer) -> tuple[Work, Vector]:
    """`collect`, checked for what holds always, and a copy of its delta (the next call overwrites
    it).
    """
    work = await trainer.collect()
    assert work.delta.dtype == np.float32
    assert work.delta.ndim == 1
    assert np.all(np.isfinite(work.delta))
    assert work.seconds >= 0.0
    assert (work.samples > 0) == (work.steps > 0)
    if work.samples == 0:
        assert work.loss is None
        assert not np.any(work.delta), "nothing was done, so nothing moved"
    else:
        assert work.loss is not None
        assert np.isfinite(work.loss)
    return work, work.delta.copy()


class TrainerSuite:
    """Inherit, provide `make_trainer`."""

    async def test_describes_its_task(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(PATIENCE_S):
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

    async def test_trains_without_being_asked_and_hands_over_what_it_did(
        self, make_trainer: TrainerFactory
    ) -> None:
        with trio.fail_after(PATIENCE_S):
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
        with trio.fail_after(PATIENCE_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                await trainer.train(anchor, LANE, max_steps=0)
                work, _ = await collected(trainer)
                assert (work.samples, work.steps) == (0, 0)

    async def test_stops_at_the_step_it_was_told(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(PATIENCE_S):
            async with make_trainer() as trainer:
                await trainer.train(await anchor_for(trainer), LANE, max_steps=4)
                await steps_done(trainer, 4)
                work, _ = await collected(trainer)
                assert work.steps == 4

    async def test_collect_leaves_it_paused(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(PATIENCE_S):
            async with make_trainer() as trainer:
                await trainer.train(await anchor_for(trainer), LANE)
                await steps_done(trainer, 1)
                await collected(trainer)
                again, _ = await collected(trainer)
                assert again.samples == 0

    async def test_deltas_add_up_to_the_whole_displacement(
        self, make_trainer: TrainerFactory
    ) -> None:
        """Three stretches resumed are one stretch of as many steps from the same lane's positions."""
        with trio.fail_after(PATIENCE_S):
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
                # Where it stands now is anchor - first - second. Training from exactly there, with
                # no steps, must be nothing: and training one step from there must go on like
                # training one step from here.
                state = await trainer.inner_state()
                await trainer.resume(OTHER_LANE, max_steps=1)
                await steps_done(trainer, 1)
                _, from_here = await collected(trainer)
                await trainer.restore_inner_state(state)
                await trainer.train((anchor - first) - second, OTHER_LANE, max_steps=1)
                await steps_done(trainer, 1)
                _, from_there = await collected(trainer)
                # The two starts differ by float32 rounding alone. Compared as a whole: where a
                # gradient is nothing but rounding noise, an inner optimizer that normalizes makes a
                # full step of it, in either direction.
                assert np.linalg.norm(from_here - from_there) <= 0.05 * np.linalg.norm(from_here)

    async def test_train_takes_the_anchor_exactly(self, make_trainer: TrainerFactory) -> None:
        """What was learned before an anchor leaves no trace in the parameters: only the inner
        optimizer's state is kept.
        """
        with trio.fail_after(PATIENCE_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                state = await self._fresh_state(trainer, anchor)
                await trainer.restore_inner_state(state)
                await trainer.train(anchor, LANE, max_steps=2)
                await steps_done(trainer, 2)
                _, expected = await collected(trainer)
                await trainer.train(await anchor_for(trainer, salt=1), OTHER_LANE, max_steps=3)
                await steps_done(trainer, 3)
                # Also straight out of training, without a collect.
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
        with trio.fail_after(PATIENCE_S):
            for _ in range(2):
                async with make_trainer() as trainer:
                    await trainer.train(await anchor_for(trainer), LANE, max_steps=3)
                    await steps_done(trainer, 3)
                    work, delta = await collected(trainer)
                    results.append((work.samples, work.loss, delta.tobytes()))
        assert results[0] == results[1]

    async def test_another_lane_draws_other_samples(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(PATIENCE_S):
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

    async def test_a_lane_goes_on_where_it_was_left(self, make_trainer: TrainerFactory) -> None:
        """Resumed, or given again behind what was drawn: the same samples, and none of them twice."""
        deltas = []
        with trio.fail_after(PATIENCE_S):
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
        """A restart that puts the state back goes on as if it had not happened."""
        with trio.fail_after(PATIENCE_S):
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
                assert state.tobytes() == kept.tobytes(), "inner_state gives a copy"
            async with make_trainer() as restarted:
                await restarted.describe()
                await restarted.restore_inner_state(kept)
                assert (await restarted.inner_state()).tobytes() == kept.tobytes()
                await restarted.train(anchor, OTHER_LANE, max_steps=2)
                await steps_done(restarted, 2)
                _, again = await collected(restarted)
                assert again.tobytes() == expected.tobytes()

    async def test_state_that_does_not_fit_is_refused(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(PATIENCE_S):
            async with make_trainer() as trainer:
                state = await self._fresh_state(trainer, await anchor_for(trainer))
                with pytest.raises(ValueError):  # noqa: PT011 (the port promises no words)
                    await trainer.restore_inner_state(np.zeros(state.size + 1, np.float32))
                assert (await trainer.inner_state()).tobytes() == state.tobytes()

    async def test_a_command_in_the_wrong_state_is_refused_and_changes_nothing(
        self, make_trainer: TrainerFactory
    ) -> None:
        """Whoever commands it may be behind: a refusal must never cost more than the command."""
        with trio.fail_after(PATIENCE_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                with pytest.raises(TrainerLost):
                    await trainer.resume(LANE)
                state = await self._fresh_state(trainer, anchor)
                await trainer.train(anchor, LANE, max_steps=1 << 20)
                with pytest.raises(TrainerLost):
                    await trainer.inner_state()
                with pytest.raises(TrainerLost):
                    await trainer.restore_inner_state(state)
                before = trainer.progress().steps
                await steps_done(trainer, before + 2)
                work, _ = await collected(trainer)
                assert work.steps >= before + 2
                assert trainer.restarts == 0

    async def test_nobody_restarted(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(PATIENCE_S):
            async with make_trainer() as trainer:
                await trainer.describe()
                assert trainer.restarts == 0

    async def _fresh_state(self, trainer: Trainer, anchor: Vector) -> Vector:
        await trainer.train(anchor, LANE, max_steps=0)
        await trainer.collect()
        return await trainer.inner_state()
