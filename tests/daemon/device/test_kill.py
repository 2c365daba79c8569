"""kill -9 of a worker that hands over, shifts and scores: only uncollected steps are lost."""

from __future__ import annotations

import os
import signal

import pytest
import trio

from protocol.ports.trainer import HeldOutShare, TrainerLost
from protocol.run.initial_parameters import initial_parameters
from tests.daemon.device.conftest import MakeTrainer
from tests.daemon.device.recorded_events import RecordedEvents
from tests.daemon.device.test_supervisor import LANE, LIMIT_S, only_worker

pytestmark = pytest.mark.real


@pytest.mark.parametrize("phase", ["hand_over", "shift", "evaluate"])
async def test_a_worker_killed_in_any_phase_loses_only_uncollected_steps(
    make_trainer: MakeTrainer, events: RecordedEvents, phase: str
) -> None:
    trainer = make_trainer()
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            anchor = initial_parameters((await trainer.describe()).specs, 0)
            await trainer.train(anchor, LANE)
            while trainer.progress().steps < 2:
                await trio.sleep(0.01)
            handed = await trainer.hand_over(LANE)
            assert handed.steps >= 2
            kept = handed.delta.copy()
            if phase == "shift":
                await trainer.shift(anchor - kept, LANE)
            worker = only_worker()
            if phase == "evaluate":
                async with trio.open_nursery() as nursery:

                    async def evaluate() -> None:
                        with pytest.raises(TrainerLost):
                            await trainer.evaluate(anchor, HeldOutShare(index=0, count=1))

                    nursery.start_soon(evaluate)
                    os.kill(worker, signal.SIGKILL)
            else:
                os.kill(worker, signal.SIGKILL)
            with pytest.raises(TrainerLost):
                await trainer.hand_over(LANE)
            await trainer.describe()
            # The next worker has no anchor: nothing can be counted twice.
            with pytest.raises(TrainerLost):
                await trainer.shift(anchor, LANE)
            await trainer.train(anchor - kept, LANE, max_steps=2)
            while trainer.progress().steps < 2:
                await trio.sleep(0.01)
            assert (await trainer.hand_over(LANE)).steps == 2
            assert trainer.restarts == 1
