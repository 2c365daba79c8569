"""The fake trainer passes the suite of `Trainer` in virtual time, and dies on request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
import trio

from protocol.ports.trainer import Trainer, TrainerLost
from simulator.fakes.trainer import RESTART_S, QuadraticTrainer, mark_of
from tests.ports.trainer_evaluation_suite import TrainerEvaluationSuite
from tests.ports.trainer_overlap_suite import TrainerOverlapSuite
from tests.ports.trainer_suite import LANE, TrainerFactory, TrainerSuite, anchor_for

pytestmark = pytest.mark.virtual_time


class TestQuadraticTrainer(TrainerSuite, TrainerOverlapSuite, TrainerEvaluationSuite):
    @pytest.fixture
    def make_trainer(self) -> TrainerFactory:
        @asynccontextmanager
        async def make() -> AsyncIterator[Trainer]:
            trainer = QuadraticTrainer(seed=3, peer="somebody")
            async with trainer.running():
                yield trainer

        return make


async def test_speed_sets_the_number_of_samples() -> None:
    trainer = QuadraticTrainer(seed=3, peer="a", samples_per_second=50.0, batch_size=5)
    await trainer.train(await anchor_for(trainer), LANE)
    await trio.sleep(10.01)
    work = await trainer.collect()
    assert (work.samples, work.steps) == (505, 101), "and the step under way is finished"
    assert work.seconds == pytest.approx(10.1)


async def test_learns() -> None:
    trainer = QuadraticTrainer(seed=3, peer="a")
    losses = []
    await trainer.train(await anchor_for(trainer), LANE)
    for _ in range(4):
        # After some seconds the loss is at the noise of the samples.
        await trio.sleep(1)
        losses.append((await trainer.collect()).loss)
        await trainer.resume(LANE)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.2 * losses[0]


async def test_death_loses_what_was_not_collected() -> None:
    trainer = QuadraticTrainer(seed=3, peer="a")
    anchor = await anchor_for(trainer)
    await trainer.train(anchor, LANE)
    await trio.sleep(1)
    trainer.crash("out of memory")
    for call in (trainer.collect, trainer.inner_state):
        with pytest.raises(TrainerLost, match="out of memory"):
            await call()
    with pytest.raises(TrainerLost):
        await trainer.train(anchor, LANE)
    start = trio.current_time()
    await trainer.describe()
    assert trio.current_time() - start == pytest.approx(RESTART_S)
    assert trainer.restarts == 1
    await trainer.train(anchor, LANE, max_steps=1)
    await trio.sleep(1)
    assert (await trainer.collect()).steps == 1


async def test_death_in_the_middle_of_a_collect() -> None:
    trainer = QuadraticTrainer(seed=3, peer="a", samples_per_second=1.0, batch_size=10)
    await trainer.train(await anchor_for(trainer), LANE)
    with pytest.RaisesGroup(TrainerLost):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trainer.collect)
            await trio.sleep(2)
            trainer.crash()


async def test_marks_identify_the_worker() -> None:
    trainer = QuadraticTrainer(seed=3, peer="a", marked=True)
    anchor = await anchor_for(trainer)
    for stretch in range(3):
        await trainer.train(anchor, LANE, max_steps=2)
        await trio.sleep(1)
        work = await trainer.collect()
        assert np.all(work.delta == np.float32(mark_of("a", stretch)))
    marks = {mark_of(peer, stretch) for peer in "abcdefgh" for stretch in range(100)}
    assert len(marks) == 800
