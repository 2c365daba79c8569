"""Decides whether and when a worker that ended is restarted. Pure.

A worker that was killed, hung or ran out of memory is always restarted, with growing pauses: the
machine may have memory again. A refused allocation (`TaskFailure.passes`) counts like a kill. A
task that fails by itself fails the same way each time. After a few restarts, the node gives up and
says that a person must fix the task.
"""

from __future__ import annotations

import msgspec

# The pauses before them are 1 + 2 + 4 s. A file server may be back after that; a typing error is
# still there.
MAX_TASK_RESTARTS = 3
# The task of a worker that ran for this long works: its next failure counts as the first.
FORGIVEN_S = 600.0


# The first step of a worker that compiles its model. A byte GPT of two layers takes 71 s on one
# shared core, and a large model has tens of layers.
COMPILED_FIRST_STEP_S = 1800.0


class WorkerTimeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How long the worker may stay silent, and how soon and how often it is restarted."""

    # None means the owner's `worker.load_timeout_s`.
    start_s: float | None = None
    # Before the first step: CUDA loads its kernels, and a task may build an index.
    first_step_s: float = 300.0
    # A command waits for the end of one step. The rest allows for a swapping or throttled machine.
    answer_s: float = 30.0
    # A multiple of the longest step so far.
    answer_steps: float = 20.0
    # An evaluation scores at most a thousand samples, once for many steps.
    evaluate_s: float = 600.0
    # After the worker ran for this long, its next end counts as the first.
    healthy_s: float = 60.0
    first_wait_s: float = 1.0
    # A process that imports torch every second would not help a machine that is short of memory.
    longest_wait_s: float = 60.0
    restarts: int = MAX_TASK_RESTARTS


class TaskFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a task failed: a sentence without its full stop, what to do, and a traceback.

    `passes` says that the failure may pass by itself. The worker is then always restarted.
    """

    what: str
    fix: str = ""
    trace: str = ""
    passes: bool = False


class RestartPolicy:
    """Counts the ends of a node's workers."""

    def __init__(self, timeouts: WorkerTimeouts) -> None:
        self._timeouts = timeouts
        self._wait_s = timeouts.first_wait_s
        # All restarts.
        self.count = 0
        # The failures of the task since it last worked.
        self.failures = 0

    def ended(self, failure: TaskFailure | None, up_s: float) -> float | None:
        """Count a worker that ended after it was ready for `up_s` seconds.

        Returns the pause before the restart, or None for no restart.
        """

        timeouts = self._timeouts
        if up_s >= timeouts.healthy_s:
            self._wait_s = timeouts.first_wait_s
        if up_s >= FORGIVEN_S:
            self.failures = 0
        if failure is not None and not failure.passes:
            self.failures += 1
            if self.failures > timeouts.restarts:
                return None
        self.count += 1
        wait_s, self._wait_s = self._wait_s, min(2 * self._wait_s, timeouts.longest_wait_s)
        return wait_s
