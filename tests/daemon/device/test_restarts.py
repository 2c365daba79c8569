"""Tests of the restart policy for workers."""

from __future__ import annotations

from daemon.device.process.restart_policy import (
    COMPILED_FIRST_STEP_S,
    FORGIVEN_S,
    MAX_TASK_RESTARTS,
    RestartPolicy,
    TaskFailure,
    WorkerTimeouts,
)
from daemon.device.process.trainer import timeouts_of
from daemon.device.settings import WorkerSettings

FAILURE = TaskFailure(what="Task failed")


def test_a_failing_task_is_restarted_a_few_times() -> None:
    restarts = RestartPolicy(WorkerTimeouts())
    waits = [restarts.ended(FAILURE, 0.0) for _ in range(MAX_TASK_RESTARTS + 1)]
    assert waits == [1.0, 2.0, 4.0, None]
    assert restarts.count == MAX_TASK_RESTARTS


def test_a_killed_worker_is_always_restarted() -> None:
    restarts = RestartPolicy(WorkerTimeouts())
    waits = [restarts.ended(None, 0.0) for _ in range(100)]
    assert waits[:8] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert waits[-1] == 60.0


def test_a_lack_of_memory_does_not_count_as_a_failure() -> None:
    restarts = RestartPolicy(WorkerTimeouts())
    short = TaskFailure(what="The worker ran out of memory", passes=True)
    waits = [restarts.ended(short, 0.0) for _ in range(100)]
    assert waits[:8] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert (waits[-1], restarts.failures) == (60.0, 0)


def test_a_failure_after_a_long_run_counts_as_the_first() -> None:
    restarts = RestartPolicy(WorkerTimeouts())
    for _ in range(5):
        assert restarts.ended(FAILURE, FORGIVEN_S) == 1.0
    assert restarts.ended(FAILURE, 1.0) == 2.0


def test_a_kill_does_not_change_the_count_of_failures() -> None:
    restarts = RestartPolicy(WorkerTimeouts())
    for _ in range(MAX_TASK_RESTARTS):
        assert restarts.ended(FAILURE, 1.0) is not None
        assert restarts.ended(None, 1.0) is not None
    assert restarts.ended(FAILURE, 1.0) is None


def test_a_worker_that_compiles_its_model_has_longer_for_its_first_step() -> None:
    assert timeouts_of(WorkerSettings(compile=True)).first_step_s == COMPILED_FIRST_STEP_S
    assert timeouts_of(WorkerSettings()) == WorkerTimeouts()
