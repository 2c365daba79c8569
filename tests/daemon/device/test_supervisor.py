"""Tests of a trainer whose worker processes die, hang, fail and refuse."""

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
from tests.daemon.device.recorded_events import RecordedEvents, gone_within, workers_of

pytestmark = pytest.mark.real

MakeTrainer = Callable[..., WorkerTrainer]
LANE = Lane(base=0, index=0, stride=1)
# A worker imports torch, which takes long on a busy machine.
LIMIT_S = 60


async def genesis(trainer: WorkerTrainer) -> Vector:
    return initial_parameters((await trainer.describe()).specs, 0)


def only_worker() -> int:
    """Return the worker itself. The node's child is its guard, whose end takes a moment longer."""
    (guard,) = workers_of(os.getpid())
    (worker,) = workers_of(guard)
    return worker


async def test_a_killed_worker_is_restarted(
    make_trainer: MakeTrainer, events: RecordedEvents
) -> None:
    trainer = make_trainer()
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            anchor = await genesis(trainer)
            await trainer.train(anchor, LANE)
            await events.next(TrainingProgress)
            os.kill(only_worker(), signal.SIGKILL)
            with pytest.raises(TrainerLost, match="SIGKILL"):
                await trainer.collect()
            assert "memory" in (await events.next(TrainerStopped)).reason
            # The next worker is not ready yet.
            with pytest.raises(TrainerLost):
                await trainer.train(anchor, LANE)
            await events.next(TrainerReady)
            await events.next(TrainerReady)
            # It is ready, but its work is lost: it waits for an anchor.
            with pytest.raises(TrainerLost):
                await trainer.collect()
            await trainer.train(anchor, LANE, max_steps=2)
            while trainer.progress().steps < 2:
                await events.next(TrainingProgress)
            assert (await trainer.collect()).steps == 2
            assert trainer.restarts == 1
    assert workers_of(os.getpid()) == []


async def test_the_trainer_reports_why_a_task_failed(
    make_trainer: MakeTrainer, events: RecordedEvents, faulty_tasks: None
) -> None:
    trainer = make_trainer("faulty_tasks:Fails")
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            await trainer.train(await genesis(trainer), LANE)
            assert (
                "RuntimeError: the cat sat on the data"
                in (await events.next(TrainerStopped)).reason
            )
            with pytest.raises(TrainerLost, match="the cat sat"):
                await trainer.collect()


@pytest.mark.parametrize("task", ["Sleeps", "Holds"])
async def test_a_worker_that_hangs_is_killed_and_restarted(
    make_trainer: MakeTrainer, events: RecordedEvents, faulty_tasks: None, note: Path, task: str
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
            assert "no answer" in (await events.next(TrainerStopped)).reason
            # Returns when the next worker is ready.
            await trainer.describe()


async def test_a_worker_that_is_not_ready_in_time_is_killed(
    make_trainer: MakeTrainer, events: RecordedEvents
) -> None:
    trainer = make_trainer(timeouts=WorkerTimeouts(start_s=0.2))
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            assert "not up after" in (await events.next(TrainerStopped)).reason


async def test_each_restart_is_reported_with_its_number(
    make_trainer: MakeTrainer, events: RecordedEvents, faulty_tasks: None
) -> None:
    trainer = make_trainer(
        "faulty_tasks:Line",
        timeouts=WorkerTimeouts(start_s=0.05, first_wait_s=0.01, longest_wait_s=0.04, restarts=9),
    )
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            for number in range(1, 5):
                assert (await events.next(TrainerStopped)).restarts == number


async def test_a_cancelled_collect_loses_nothing(
    make_trainer: MakeTrainer, events: RecordedEvents, faulty_tasks: None
) -> None:
    trainer = make_trainer("faulty_tasks:Line")
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            anchor = await genesis(trainer)
            await trainer.train(anchor, LANE, max_steps=5)
            while trainer.progress().steps < 5:
                await events.next(TrainingProgress)
            with trio.CancelScope() as scope:
                scope.cancel()
                # Cancelled before the trainer sends the command.
                await trainer.collect()
            # A stopped worker cannot answer before the call is cancelled.
            os.kill(only_worker(), signal.SIGSTOP)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trainer.collect)
                    # The command is sent, and the trainer waits for the answer.
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            os.kill(only_worker(), signal.SIGCONT)
            await trainer.resume(LANE, max_steps=2)
            while trainer.progress().steps < 2:
                await events.next(TrainingProgress)
            work = await trainer.collect()
            assert (work.steps, work.samples) == (7, 28)
            whole = work.delta.copy()
            await trainer.train(anchor - whole, LANE, max_steps=0)
            assert (await trainer.collect()).samples == 0


async def test_work_that_is_not_finite_is_discarded(
    make_trainer: MakeTrainer, events: RecordedEvents, faulty_tasks: None
) -> None:
    trainer = make_trainer("faulty_tasks:Explodes")
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            anchor = await genesis(trainer)
            await trainer.train(anchor, LANE, max_steps=2)
            while trainer.progress().steps < 2:
                await events.next(TrainingProgress)
            assert (await trainer.collect()).samples == 8
            await trainer.resume(LANE)
            warned = await events.next(Warned)
            assert warned.code == "NON_FINITE"
            work = await trainer.collect()
            assert (work.samples, work.loss) == (0, None)
            assert not work.delta.any()
            assert np.isfinite(await trainer.inner_state()).all()


async def test_the_trainer_refuses_impossible_commands(
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
            state = await trainer.inner_state()
            with pytest.raises(TrainerLost, match="collect first"):
                await trainer.restore_inner_state(state)


async def test_running_does_not_wrap_exceptions_of_its_block(make_trainer: MakeTrainer) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with make_trainer().running():
            raise KeyError("mine")


async def test_calls_after_the_end_raise_trainer_lost(make_trainer: MakeTrainer) -> None:
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


async def test_a_custom_task_is_refused_without_the_owners_permission(
    make_trainer: MakeTrainer, faulty_tasks: None
) -> None:
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
async def test_a_task_that_a_person_must_fix_is_not_restarted(
    make_trainer: MakeTrainer,
    events: RecordedEvents,
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
    assert events.events == []


async def test_the_processes_of_a_task_end_with_the_trainer(
    make_trainer: MakeTrainer, faulty_tasks: None, note: Path
) -> None:
    trainer = make_trainer("faulty_tasks:Spawns")
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            child = int(await trio.to_thread.run_sync(note.read_text))
            await trainer.describe()
    assert gone_within(child, 10)


async def test_workers_that_ended_leave_no_descriptors(
    make_trainer: MakeTrainer, events: RecordedEvents, faulty_tasks: None
) -> None:
    def open_descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    await trio.to_thread.run_sync(lambda: None)
    before = open_descriptors()
    trainer = make_trainer(
        "faulty_tasks:Line",
        timeouts=WorkerTimeouts(start_s=0.02, first_wait_s=0.01, longest_wait_s=0.01, restarts=9),
    )
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            for _ in range(5):
                await events.next(TrainerStopped)
    assert open_descriptors() <= before
