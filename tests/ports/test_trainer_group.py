"""A group of trainers passes the suite of the Trainer port, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
import trio

from daemon.device.group.trainer_group import TrainerGroup
from protocol.ports.offload import inline
from protocol.ports.trainer import Lane, Trainer, TrainerLost
from simulator.fakes.trainer import RESTART_S, QuadraticTrainer
from tests.ports.trainer_evaluation_suite import TrainerEvaluationSuite
from tests.ports.trainer_overlap_suite import TrainerOverlapSuite
from tests.ports.trainer_suite import LANE, OTHER_LANE, TrainerFactory, TrainerSuite, anchor_for

pytestmark = pytest.mark.virtual_time

# Samples a second of the three trainers.
SPEEDS = (100.0, 100.0, 50.0)


def group_of(speeds: tuple[float, ...] = SPEEDS) -> tuple[TrainerGroup, list[QuadraticTrainer]]:
    trainers = [
        QuadraticTrainer(seed=3, peer="somebody", samples_per_second=speed) for speed in speeds
    ]
    return TrainerGroup(trainers, inline, lambda message: None), trainers


class TestTrainerGroup(TrainerSuite, TrainerOverlapSuite, TrainerEvaluationSuite):
    @pytest.fixture
    def make_trainer(self) -> TrainerFactory:
        @asynccontextmanager
        async def make() -> AsyncIterator[Trainer]:
            yield group_of((100.0, 100.0))[0]

        return make


async def test_the_group_sums_displacements_by_their_samples() -> None:
    group, _ = group_of()
    anchor = await anchor_for(group)
    await group.train(anchor, LANE)
    await trio.sleep(4.0)
    work = await group.hand_over(OTHER_LANE)
    alone = []
    for number, speed in enumerate(SPEEDS):
        single = QuadraticTrainer(seed=3, peer="somebody", samples_per_second=speed)
        await single.train(anchor, LANE.part(number, 3))
        await trio.sleep(4.0)
        alone.append(await single.hand_over(OTHER_LANE))
    assert work.samples == sum(each.samples for each in alone) == 1000
    wanted = sum(each.delta * (each.samples / work.samples) for each in alone)
    assert np.allclose(work.delta, wanted, rtol=1e-5, atol=1e-7)
    # The lane is used up to the last sample of any trainer.
    assert work.drawn == max((each.drawn - 1) * 3 + number + 1 for number, each in enumerate(alone))


async def test_all_trainers_go_on_from_the_parameters_of_the_group() -> None:
    group, trainers = group_of()
    anchor = await anchor_for(group)
    await group.train(anchor, LANE)
    await trio.sleep(2.0)
    work = await group.collect()
    await group.resume(LANE, max_steps=0)
    places = [trainer.point.now.copy() for trainer in trainers]
    for place in places:
        assert np.allclose(place, anchor - work.delta, rtol=1e-5, atol=1e-7)


async def test_a_trainer_that_dies_costs_only_its_own_steps() -> None:
    warnings: list[str] = []
    trainers = [QuadraticTrainer(seed=3, peer="somebody") for _ in range(2)]
    group = TrainerGroup(trainers, inline, warnings.append)
    anchor = await anchor_for(group)
    await group.train(anchor, LANE)
    await trio.sleep(2.0)
    trainers[1].crash("out of memory")
    work = await group.hand_over(OTHER_LANE)
    assert work.samples == 200
    assert group.restarts == 0
    assert [("device 2 of 2" in each, "out of memory" in each) for each in warnings] == [
        (True, True)
    ]
    # It is down for a second, and then joins the others.
    await group.shift(anchor, LANE)
    await trio.sleep(RESTART_S + 1.0)
    alone = await group.hand_over(OTHER_LANE)
    await group.shift(anchor, LANE)
    await trio.sleep(1.0)
    both = await group.hand_over(OTHER_LANE)
    assert alone.samples == pytest.approx(200, abs=20)
    assert both.samples == pytest.approx(200, abs=20)
    assert trainers[1].progress().samples > 0


async def test_the_group_is_lost_when_all_trainers_are() -> None:
    group, trainers = group_of((100.0, 100.0))
    anchor = await anchor_for(group)
    await group.train(anchor, LANE)
    await trio.sleep(1.0)
    for trainer in trainers:
        trainer.crash("the power is off")
    assert group.restarts == 1
    with pytest.raises(TrainerLost, match="the power is off"):
        await group.hand_over(LANE)
    with pytest.raises(TrainerLost):
        await group.train(anchor, LANE)
    assert group.restarts == 1
    await group.describe()
    await group.train(anchor, LANE, max_steps=2)
    assert group.restarts == 1
    await trio.sleep(1.0)
    assert (await group.collect()).steps == 2


async def test_a_cancelled_collect_keeps_the_work_of_the_fast_trainer() -> None:
    group, _ = group_of((100.0, 1.0))
    await group.train(await anchor_for(group), LANE)
    await trio.sleep(5.0)
    with trio.move_on_after(2.0) as waiting:
        # The slow trainer's step takes ten seconds.
        await group.collect()
    assert waiting.cancelled_caught
    work = await group.collect()
    assert work.samples == 510 + 10


async def test_the_inner_state_of_another_number_of_devices_is_restored() -> None:
    one, _ = group_of((100.0,))
    anchor = await anchor_for(one)
    await one.train(anchor, LANE, max_steps=3)
    await trio.sleep(1.0)
    await one.collect()
    state = await one.inner_state()
    three, _ = group_of()
    await three.restore_inner_state(state)
    assert np.array_equal(await three.inner_state(), np.tile(state, 3))
    await one.restore_inner_state(await three.inner_state())
    assert np.array_equal(await one.inner_state(), state)


@pytest.mark.parametrize("limit", [0, 1, 2, 7, 12])
def test_parts_of_a_lane_share_no_sample_and_cover_it(limit: int) -> None:
    lane = Lane(base=100, index=1, stride=4, limit=limit)
    count = limit or 30
    parts = [lane.part(number, 3) for number in range(3)]
    drawn = [part.position(number) for part in parts for number in range(part.limit or count // 3)]
    assert set(drawn) == {lane.position(number) for number in range(count)}
    if limit == 0 or limit >= 3:
        assert len(drawn) == count
