"""How every `Trainer` must score parameters.

A test module subclasses `TrainerEvaluationSuite` and provides the fixture `make_trainer`.
"""

from __future__ import annotations

import numpy as np
import pytest
import trio

from protocol.ports.trainer import HeldOutShare
from tests.ports.trainer_suite import (
    LANE,
    TIMEOUT_S,
    TrainerFactory,
    anchor_for,
    collected,
    steps_done,
)

ALL = HeldOutShare(index=0, count=1)


class TrainerEvaluationSuite:
    """Inherit, and provide `make_trainer`."""

    async def test_evaluate_needs_no_anchor_and_repeats(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                first = await trainer.evaluate(anchor, ALL)
                again = await trainer.evaluate(anchor, ALL)
                other = await trainer.evaluate(await anchor_for(trainer, salt=1), ALL)
                assert np.isfinite(first.loss)
                assert first.samples > 0
                assert first.seconds >= 0.0
                assert (first.loss, first.metrics, first.samples) == (
                    again.loss,
                    again.metrics,
                    again.samples,
                )
                assert first.loss != other.loss

    async def test_shares_divide_the_held_out_samples(self, make_trainer: TrainerFactory) -> None:
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                whole = await trainer.evaluate(anchor, ALL)
                parts = [
                    await trainer.evaluate(anchor, HeldOutShare(index=index, count=3))
                    for index in range(3)
                ]
                assert sum(part.samples for part in parts) == whole.samples
                mean = sum(part.loss * part.samples for part in parts) / whole.samples
                assert mean == pytest.approx(whole.loss, rel=1e-4)

    async def test_evaluate_does_not_disturb_training(self, make_trainer: TrainerFactory) -> None:
        results = []
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                other = await anchor_for(trainer, salt=1)
                await trainer.train(anchor, LANE, max_steps=0)
                state = (await trainer.inner_state()).copy()
                for scored in (False, True):
                    await collected(trainer)
                    await trainer.restore_inner_state(state)
                    await trainer.train(anchor, LANE, max_steps=6)
                    if scored:
                        await steps_done(trainer, 1)
                        await trainer.evaluate(other, ALL)
                    await steps_done(trainer, 6)
                    work, delta = await collected(trainer)
                    inner = (await trainer.inner_state()).tobytes()
                    results.append((work.steps, work.loss, delta.tobytes(), inner))
        assert results[0] == results[1]

    async def test_group_losses_repeat_and_need_no_anchor(
        self, make_trainer: TrainerFactory
    ) -> None:
        positions = np.arange(60, dtype=np.int64).reshape(10, 6)
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                first = await trainer.group_losses(anchor, positions)
                again = await trainer.group_losses(anchor, positions[::-1])
                other = await trainer.group_losses(await anchor_for(trainer, salt=1), positions)
                assert len(first.losses) == 10
                assert np.isfinite(first.losses).all()
                assert first.losses == again.losses[::-1]
                assert first.losses != other.losses

    async def test_group_losses_do_not_disturb_training(self, make_trainer: TrainerFactory) -> None:
        positions = np.arange(60, dtype=np.int64).reshape(10, 6)
        results = []
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                await trainer.train(anchor, LANE, max_steps=0)
                state = (await trainer.inner_state()).copy()
                for measured in (False, True):
                    await collected(trainer)
                    await trainer.restore_inner_state(state)
                    await trainer.train(anchor, LANE, max_steps=6)
                    if measured:
                        await steps_done(trainer, 1)
                        await trainer.group_losses(await anchor_for(trainer, salt=1), positions)
                    await steps_done(trainer, 6)
                    work, delta = await collected(trainer)
                    results.append((work.steps, work.loss, delta.tobytes()))
        assert results[0] == results[1]

    async def test_hand_over_does_not_wait_for_an_evaluation(
        self, make_trainer: TrainerFactory
    ) -> None:
        """The work is the same before, during and after an evaluation."""
        with trio.fail_after(TIMEOUT_S):
            async with make_trainer() as trainer:
                anchor = await anchor_for(trainer)
                await trainer.train(anchor, LANE, max_steps=3)
                await steps_done(trainer, 3)
                handed: list[int] = []
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trainer.evaluate, anchor, ALL)
                    await trio.lowlevel.checkpoint()
                    handed.append((await trainer.hand_over(LANE)).steps)
                assert handed == [3]
                assert (await collected(trainer))[0].steps == 0
