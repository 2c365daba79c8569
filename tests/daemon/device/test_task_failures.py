"""Tests of failing tasks: the messages, the restarts, and the log of their output."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from daemon.children.line_log import LINES_AT_ONCE, LINES_PER_S, LineRation
from daemon.device.process.restart_policy import WorkerTimeouts
from daemon.device.process.trainer import WorkerTrainer
from daemon.home.batch_parts import BatchPartFile
from protocol.errors import UserError
from protocol.journal import BatchSkipped, TrainerReady, TrainerStopped, TrainingProgress, Warned
from protocol.ports.trainer import Lane, TrainerLost
from protocol.run.initial_parameters import initial_parameters
from protocol.run.task_digest import TaskDigest, TensorPart
from tests.daemon.device.recorded_events import RecordedEvents, workers_of

MakeTrainer = Callable[..., WorkerTrainer]
LANE = Lane(base=0, index=0, stride=1)
# A few workers import torch, one after another, which takes long on a busy machine.
LIMIT_S = 90
ONCE = WorkerTimeouts(first_wait_s=0.05, longest_wait_s=0.05, restarts=1)


@pytest.mark.real
@pytest.mark.parametrize(
    ("task", "place", "words"),
    [
        ("FailsToLoad", "faulty_tasks.py:", "KeyError: 'text'"),
        ("WrongInit", "__init__()", "TypeError"),
        ("needs_a_module:Task", "needs_a_module.py:3", "No module named 'no_such_library'"),
    ],
)
async def test_a_task_that_does_not_load_is_reported_with_its_place(
    make_trainer: MakeTrainer,
    events: RecordedEvents,
    faulty_tasks: None,
    task: str,
    place: str,
    words: str,
) -> None:
    trainer = make_trainer(task if ":" in task else f"faulty_tasks:{task}", timeouts=ONCE)
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            with pytest.raises(UserError) as refusal:
                await trainer.describe()
    assert refusal.value.exit_code == 1
    assert words in str(refusal.value)
    first, last = (event for event in events.events if isinstance(event, TrainerStopped))
    assert (first.failures, first.limit, first.for_good) == (1, 1, False)
    assert (last.failures, last.for_good) == (2, True)
    assert place in first.reason
    assert words in first.reason
    assert words in first.trace


@pytest.mark.real
async def test_the_trainer_gives_up_a_task_that_fails_at_its_first_steps(
    make_trainer: MakeTrainer, events: RecordedEvents, faulty_tasks: None
) -> None:
    trainer = make_trainer("faulty_tasks:Fails", timeouts=ONCE)
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            anchor = initial_parameters((await trainer.describe()).specs, 0)
            for _ in range(2):
                await events.next(TrainerReady)
                await trainer.train(anchor, LANE)
                stopped = await events.next(TrainerStopped)
                assert "the cat sat on the data" in stopped.reason
                assert 'raise RuntimeError("the cat sat on the data")' in stopped.trace
            assert stopped.for_good
            assert trainer.gave_up
            assert not trainer.trained
            assert workers_of(os.getpid()) == []
            for call in (lambda: trainer.train(anchor, LANE), trainer.collect, trainer.inner_state):
                with pytest.raises(TrainerLost, match="the cat sat"):
                    await call()
            with trio.move_on_after(0.2) as waiting:
                await trainer.describe()
            assert waiting.cancelled_caught, "describe() waits for a worker that never comes"


@pytest.mark.real
async def test_a_worker_without_memory_is_always_restarted(
    make_trainer: MakeTrainer, events: RecordedEvents, faulty_tasks: None
) -> None:
    """Memory may be short for a minute only, longer than a few restarts take."""
    trainer = make_trainer("faulty_tasks:ShortOfMemory", timeouts=ONCE)
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            anchor = initial_parameters((await trainer.describe()).specs, 0)
            for _ in range(ONCE.restarts + 2):
                await events.next(TrainerReady)
                await trainer.train(anchor, LANE)
                stopped = await events.next(TrainerStopped)
                assert (stopped.failures, stopped.limit, stopped.for_good) == (0, 0, False)
            assert re.match(
                r"The worker ran out of memory in faulty_tasks.py:\d+ loss\(\): "
                r".*out of memory.*; trying again in",
                stopped.reason,
            )
            assert not trainer.gave_up


@pytest.mark.real
async def test_a_size_that_memory_allows_is_found_in_mid_run_and_kept_for_the_next_start(
    make_trainer: MakeTrainer, events: RecordedEvents, faulty_tasks: None, tmp_path: Path
) -> None:
    """No step is lost, and the next worker begins with the size."""
    kept = BatchPartFile(tmp_path, "task")
    trainer = make_trainer("faulty_tasks:ShortOfMemoryLater", timeouts=ONCE, parts=kept)
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            anchor = initial_parameters((await trainer.describe()).specs, 0)
            await trainer.train(anchor, LANE, max_steps=6)
            warned = await events.next(Warned)
            while trainer.progress().steps < 6:
                await trio.sleep(0.01)
            work = await trainer.collect()
        assert (work.steps, work.samples, work.drawn, trainer.restarts) == (6, 24, 24, 0)
        assert warned.code == "BATCH_PART"
        assert "too little memory for 4 samples at once. It now computes 2" in warned.message
        assert BatchPartFile(tmp_path, "task").load() == 2
        assert BatchPartFile(tmp_path, "other").load() == 0
        again = make_trainer("faulty_tasks:ShortOfMemoryLater", timeouts=ONCE, parts=kept)
        async with again.running():
            await again.train(anchor, LANE, max_steps=6)
            while again.progress().steps < 6:
                await trio.sleep(0.01)
            assert (await again.collect()).samples == 24
    # The second start computed two samples at once from its first step, so it never ran short.
    assert not [event for event in events.events if isinstance(event, Warned)][1:]


@pytest.mark.real
async def test_a_crash_of_native_code_is_reported_with_its_python_line(
    make_trainer: MakeTrainer, events: RecordedEvents, faulty_tasks: None
) -> None:
    trainer = make_trainer("faulty_tasks:Crashes", timeouts=ONCE)
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            await trainer.train(initial_parameters((await trainer.describe()).specs, 0), LANE)
            stopped = await events.next(TrainerStopped)
    assert re.match(
        r"The task crashed with SIGSEGV in faulty_tasks.py:\d+ loss\(\)", stopped.reason
    )
    assert (stopped.failures, stopped.limit) == (1, 1)


@pytest.mark.real
async def test_the_error_for_a_slow_task_names_the_setting_for_its_timeout(
    make_trainer: MakeTrainer, events: RecordedEvents, faulty_tasks: None
) -> None:
    trainer = make_trainer(
        "faulty_tasks:Line", timeouts=WorkerTimeouts(start_s=0.05, first_wait_s=0.01, restarts=1)
    )
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            with pytest.raises(UserError, match=r"(?s)not up after 0.05 s.*load_timeout_s"):
                await trainer.describe()


@pytest.mark.real
async def test_a_bad_sample_is_reported_with_its_index_and_training_continues(
    make_trainer: MakeTrainer, events: RecordedEvents, faulty_tasks: None
) -> None:
    trainer = make_trainer("faulty_tasks:BadSample")
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            await trainer.train(
                initial_parameters((await trainer.describe()).specs, 0), LANE, max_steps=49
            )
            while trainer.progress().steps < 49:
                await events.next(TrainingProgress)
            work = await trainer.collect()
            assert work.samples == 49 * 4
            skipped = await events.next(BatchSkipped)
            assert "image 17 is truncated" in skipped.what
            assert "data indices" in skipped.where
            assert "17" in skipped.where
            assert trainer.restarts == 0


@pytest.mark.real
async def test_the_output_of_a_task_is_logged_up_to_a_rate(
    make_trainer: MakeTrainer,
    events: RecordedEvents,
    faulty_tasks: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "hypergpu.worker.output")
    trainer = make_trainer("faulty_tasks:Talks")
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            await trainer.describe()
    lines = [
        record.getMessage() for record in caplog.records if record.name == "hypergpu.worker.output"
    ]
    assert "a warning" in lines
    assert "indexing �[31mthe data set" in lines
    assert 100 < len(lines) < LINES_AT_ONCE + LINES_PER_S * LIMIT_S


@pytest.mark.real
async def test_the_end_of_a_worker_is_noticed_while_its_child_holds_the_link(
    make_trainer: MakeTrainer, events: RecordedEvents, faulty_tasks: None
) -> None:
    trainer = make_trainer("faulty_tasks:Forks")
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            await trainer.describe()
            for worker in workers_of(os.getpid()):
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
            with trio.fail_after(10):
                assert "SIGKILL" in (await events.next(TrainerStopped)).reason


def test_line_ration_counts_the_lines_it_leaves_out() -> None:
    ration = LineRation(0.0)
    assert sum(ration.allows(0.0) for _ in range(1000)) == LINES_AT_ONCE
    assert ration.left_out == 1000 - LINES_AT_ONCE
    assert not ration.allows(0.5 / LINES_PER_S)
    assert ration.allows(1.5 / LINES_PER_S)


def test_the_module_with_the_missing_import_exists() -> None:
    assert (Path(__file__).parent / "needs_a_module.py").exists()


@pytest.mark.real
async def test_a_task_whose_model_differs_from_the_homes_is_refused(
    make_trainer: MakeTrainer, events: RecordedEvents, faulty_tasks: None
) -> None:
    held = TaskDigest(parameters=(TensorPart(name="line.weight", shape=(1, 1), dtype="float32"),))
    trainer = make_trainer("faulty_tasks:Line", previous_task=held)
    with trio.fail_after(LIMIT_S):
        async with trainer.running():
            with pytest.raises(
                UserError,
                match=r"(?s)TASK_CHANGED.*the model has parameter 1 `line.weight`, the task"
                r" `weight`",
            ):
                await trainer.describe()
    assert events.events == []
