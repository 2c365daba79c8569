"""When a worker is started again."""

from __future__ import annotations

from daemon.device.process.restart_policy import (
    FORGIVEN_S,
    MAX_TASK_RESTARTS,
    RestartPolicy,
    TaskFailure,
    WorkerTimeouts,
)

FAILURE = TaskFailure(what="Task failed")


def test_a_task_that_fails_by_itself_is_tried_a_few_times() -> None:
    restarts = RestartPolicy(WorkerTimeouts())
    waits = [restarts.ended(FAILURE, 0.0) for _ in range(MAX_TASK_RESTARTS + 1)]
    assert waits == [1.0, 2.0, 4.0, None]
    assert restarts.count == MAX_TASK_RESTARTS


def test_a_worker_that_is_killed_is_started_for_ever() -> None:
    restarts = RestartPolicy(WorkerTimeouts())
    waits = [restarts.ended(None, 0.0) for _ in range(100)]
    assert waits[:8] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert waits[-1] == 60.0


def test_a_lack_of_memory_never_counts_as_a_failure_of_the_task() -> None:
    restarts = RestartPolicy(WorkerTimeouts())
    short = TaskFailure(what="The worker ran out of memory", passes=True)
    waits = [restarts.ended(short, 0.0) for _ in range(100)]
    assert waits[:8] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert (waits[-1], restarts.failures) == (60.0, 0)


def test_a_task_that_worked_for_long_begins_to_count_anew() -> None:
    restarts = RestartPolicy(WorkerTimeouts())
    for _ in range(5):
        assert restarts.ended(FAILURE, FORGIVEN_S) == 1.0
    assert restarts.ended(FAILURE, 1.0) == 2.0


def test_kills_between_failures_neither_count_nor_forgive() -> None:
    restarts = RestartPolicy(WorkerTimeouts())
    for _ in range(MAX_TASK_RESTARTS):
        assert restarts.ended(FAILURE, 1.0) is not None
        assert restarts.ended(None, 1.0) is not None
    assert restarts.ended(FAILURE, 1.0) is None
