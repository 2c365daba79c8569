"""When a worker is started again."""

from __future__ import annotations

from daemon.device.process.restart_policy import (
    FORGIVEN_S,
    RESTARTS_FOR_A_PERSON,
    Failure,
    Patience,
    Restarts,
)

FAILURE = Failure(what="Task failed")


def test_a_task_that_fails_by_itself_is_tried_a_few_times() -> None:
    restarts = Restarts(Patience())
    waits = [restarts.ended(FAILURE, 0.0) for _ in range(RESTARTS_FOR_A_PERSON + 1)]
    assert waits == [1.0, 2.0, 4.0, None]
    assert restarts.count == RESTARTS_FOR_A_PERSON


def test_a_worker_that_is_killed_is_started_for_ever() -> None:
    restarts = Restarts(Patience())
    waits = [restarts.ended(None, 0.0) for _ in range(100)]
    assert waits[:8] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert waits[-1] == 60.0


def test_a_lack_of_memory_never_counts_as_a_failure_of_the_task() -> None:
    restarts = Restarts(Patience())
    short = Failure(what="The worker ran out of memory", passes=True)
    waits = [restarts.ended(short, 0.0) for _ in range(100)]
    assert waits[:8] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert (waits[-1], restarts.failures) == (60.0, 0)


def test_a_task_that_worked_for_long_begins_to_count_anew() -> None:
    restarts = Restarts(Patience())
    for _ in range(5):
        assert restarts.ended(FAILURE, FORGIVEN_S) == 1.0
    assert restarts.ended(FAILURE, 1.0) == 2.0


def test_kills_between_failures_neither_count_nor_forgive() -> None:
    restarts = Restarts(Patience())
    for _ in range(RESTARTS_FOR_A_PERSON):
        assert restarts.ended(FAILURE, 1.0) is not None
        assert restarts.ended(None, 1.0) is not None
    assert restarts.ended(FAILURE, 1.0) is None
