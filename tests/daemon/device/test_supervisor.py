"""Real worker processes that die, hang, fail and refuse, and the trainer that outlives them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trio
import trio.testing

from daemon.device.process.trainer import WorkerTimeouts, WorkerTrainer
from protocol.averaging.vector_layout import Vector
from protocol.errors import UserError
from protocol.journal import TrainerReady, TrainerStopped, TrainingProgress, Warned
from protocol.ports.trainer import Lane, TrainerLost
from protocol.run.initial_parameters import initial_parameters
from tests.daemon.device.recorded_events import Happened, gone_within, workers_of

pytestmark = pytest.mark.real

MakeTrainer = Callable[..., WorkerTrainer]
LANE = Lane(base=0, index=0, stride=1)
# A worker imports torch, on a machine that is busy with other tests.
LIMIT_S = 60


async def genesis(trainer: WorkerTrainer) -> Vector:
    return initial_parameters((await trainer.describe()).specs, 0)


def only_worker() -> int:
    (pid,) = workers_of(os.getpid())
    return pid


async def test_a_worker_that_is_killed_comes_back(
    make_trainer: MakeTrainer, happened: Happened
) -> None:
    trainer = make_trainer()
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            anchor = await genesis(trainer)
            await trainer.train(anchor, LANE)
            await happened.next(TrainingProgress)
            os.kill(only_worker(), signal.SIGKILL)
            with pytest.raises(TrainerLost, match="SIGKILL"):
                await trainer.collect()
            assert "memory" in (await happened.next(TrainerStopped)).reason
            with pytest.raises(TrainerLost):  # not up yet
                await trainer.train(anchor, LANE)
            await happened.next(TrainerReady)
            await happened.next(TrainerReady)
            # Up, but what it had learned is gone: it waits for an anchor.
            with pytest.raises(TrainerLost):
                await trainer.collect()
            await trainer.train(anchor, LANE, max_steps=2)
            while trainer.progress().steps < 2:
                await happened.next(TrainingProgress)
            assert (await trainer.collect()).steps == 2
            assert trainer.restarts == 1
    assert workers_of(os.getpid()) == []


async def test_a_task_that_fails_says_so(
    make_trainer: MakeTrainer, happened: Happened, faulty_tasks: None
) -> None:
    trainer = make_trainer("faulty_tasks:Fails")
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            await trainer.train(await genesis(trainer), LANE)
            assert (
                "RuntimeError: the cat sat on the data"
                in (await happened.next(TrainerStopped)).reason
            )
            with pytest.raises(TrainerLost, match="the cat sat"):
                await trainer.collect()


@pytest.mark.parametrize("task", ["Sleeps", "Holds"])
async def test_a_worker_that_hangs_is_ended(
    make_trainer: MakeTrainer, happened: Happened, faulty_tasks: None, note: Path, task: str
) -> None:
    trainer = make_trainer(
        f"faulty_tasks:{task}", timeouts=WorkerTimeouts(first_step_s=0.5, first_wait_s=0.05)
    )
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            await trainer.train(await genesis(trainer), LANE)
            await trio.to_thread.run_sync(note.read_text)
            with pytest.raises(TrainerLost, match="no answer"):
                await trainer.collect()
            assert "no answer" in (await happened.next(TrainerStopped)).reason
            await trainer.describe()  # and it is back


async def test_a_worker_that_never_comes_up_is_ended(
    make_trainer: MakeTrainer, happened: Happened
) -> None:
    trainer = make_trainer(timeouts=WorkerTimeouts(start_s=0.2))
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            assert "not up after" in (await happened.next(TrainerStopped)).reason


async def test_waits_grow_and_are_said(
    make_trainer: MakeTrainer, happened: Happened, faulty_tasks: None
) -> None:
    trainer = make_trainer(
        "faulty_tasks:Line",
        timeouts=WorkerTimeouts(start_s=0.05, first_wait_s=0.01, longest_wait_s=0.04, restarts=9),
    )
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            for number in range(1, 5):
                assert (await happened.next(TrainerStopped)).restarts == number


async def test_a_cancelled_collect_loses_nothing(
    make_trainer: MakeTrainer, happened: Happened, faulty_tasks: None
) -> None:
    trainer = make_trainer("faulty_tasks:Line")
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            anchor = await genesis(trainer)
            await trainer.train(anchor, LANE, max_steps=5)
            while trainer.progress().steps < 5:
                await happened.next(TrainingProgress)
            with trio.CancelScope() as scope:
                scope.cancel()
                await trainer.collect()  # cancelled before it is asked
            os.kill(only_worker(), signal.SIGSTOP)  # it might answer before it is cancelled
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trainer.collect)
                    await trio.testing.wait_all_tasks_blocked()  # asked, and waiting for the answer
                    scope.cancel()
            os.kill(only_worker(), signal.SIGCONT)
            await trainer.resume(LANE, max_steps=2)
            while trainer.progress().steps < 2:
                await happened.next(TrainingProgress)
            work = await trainer.collect()
            assert (work.steps, work.samples) == (7, 28)
            whole = work.delta.copy()
            await trainer.train(anchor - whole, LANE, max_steps=0)
            assert (await trainer.collect()).samples == 0


async def test_what_is_not_finite_stays_here(
    make_trainer: MakeTrainer, happened: Happened, faulty_tasks: None
) -> None:
    trainer = make_trainer("faulty_tasks:Explodes")
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            anchor = await genesis(trainer)
            await trainer.train(anchor, LANE, max_steps=2)
            while trainer.progress().steps < 2:
                await happened.next(TrainingProgress)
            assert (await trainer.collect()).samples == 8
            await trainer.resume(LANE)
            warned = await happened.next(Warned)
            assert warned.code == "NON_FINITE"
            work = await trainer.collect()
            assert (work.samples, work.loss) == (0, None)
            assert not work.delta.any()
            assert np.isfinite(await trainer.inner_state()).all()


async def test_it_can_be_asked_only_what_makes_sense(
    make_trainer: MakeTrainer, faulty_tasks: None
) -> None:
    trainer = make_trainer("faulty_tasks:Line")
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            anchor = await genesis(trainer)
            with pytest.raises(TrainerLost, match="no anchor"):
                await trainer.resume(LANE)
            with pytest.raises(ValueError, match="shape"):
                await trainer.train(np.zeros(3, np.float32), LANE)
            with pytest.raises(ValueError, match="positions"):
                await trainer.train(anchor, Lane(base=(1 << 63) - 1, index=0, stride=1))
            with pytest.raises(ValueError, match="inner optimizer"):
                await trainer.restore_inner_state(np.full_like(await trainer.inner_state(), np.nan))
            await trainer.train(anchor, LANE)
            with pytest.raises(TrainerLost, match="collect first"):
                await trainer.inner_state()


async def test_exceptions_of_the_block_come_out_as_they_are(make_trainer: MakeTrainer) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with make_trainer().running():
            raise KeyError("mine")


async def test_after_its_end_nobody_waits(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            anchor = await genesis(trainer)
            await trainer.train(anchor, LANE)
        for call in (
            trainer.describe,
            trainer.collect,
            trainer.inner_state,
            lambda: trainer.train(anchor, LANE),
        ):
            with pytest.raises(TrainerLost):
                await call()


async def test_strangers_code_does_not_run(make_trainer: MakeTrainer, faulty_tasks: None) -> None:
    with pytest.raises(UserError, match="TASK_NOT_ALLOWED"):
        async with make_trainer("faulty_tasks:Line", allow=False).running():
            pytest.fail("it started")


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        ("byte_gpt", {"layer": 2}, "did you mean 'layers'"),
        ("byte_gpt", {"corpus": "/etc"}, "data_folders"),
        ("faulty_tasks:NotATask", {}, "hypergpu.Task"),
        ("faulty_tasks:Normed", {}, "BatchNorm1d"),
        ("no_such_module:Task", {}, "no module"),
    ],
)
async def test_what_a_person_must_mend_is_said_and_not_retried(
    make_trainer: MakeTrainer,
    happened: Happened,
    faulty_tasks: None,
    task: str,
    options: dict[str, object],
    words: str,
) -> None:
    trainer = make_trainer(task, options=options)
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            with pytest.raises(UserError) as refusal:
                await trainer.describe()
            assert words in str(refusal.value)
            with pytest.raises(UserError):
                await trainer.train(np.zeros(1, np.float32), LANE)
    assert happened.events == []


async def test_what_a_task_started_goes_with_it(
    make_trainer: MakeTrainer, faulty_tasks: None, note: Path
) -> None:
    trainer = make_trainer("faulty_tasks:Spawns")
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            child = int(await trio.to_thread.run_sync(note.read_text))
            await trainer.describe()
    assert gone_within(child, 10)


async def test_descriptors_are_given_back(
    make_trainer: MakeTrainer, happened: Happened, faulty_tasks: None
) -> None:
    def held() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    await trio.to_thread.run_sync(lambda: None)
    before = held()
    trainer = make_trainer(
        "faulty_tasks:Line",
        timeouts=WorkerTimeouts(start_s=0.02, first_wait_s=0.01, longest_wait_s=0.01, restarts=9),
    )
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            for _ in range(5):
                await happened.next(TrainerStopped)
    assert held() <= before
