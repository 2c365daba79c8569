"""Whether a worker that ended is started again, and when. Pure.

A worker that was killed, hung or ran out of memory is started again for ever, with growing pauses:
the machine may have room again. That holds for memory that an allocator refuses (`TaskFailure.passes`)
as for a kill. A task that fails by itself does the same thing each time. After a few restarts a
person must mend it; until then no restart helps, and the node says so.
"""

from __future__ import annotations

import msgspec

# The pauses before them make 1 + 2 + 4 s: a file server that was away for a moment is back, a
# typing error is not.
MAX_TASK_RESTARTS = 3
# Up for so long, a worker's task is taken to work, and its next failure counts as the first.
FORGIVEN_S = 600.0


class WorkerTimeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How long the worker may stay silent, and how fast and how often it is started again."""

    # None: the owner's `worker.load_timeout_s`.
    start_s: float | None = None
    # Nothing is known yet; CUDA loads its kernels, a task may build an index.
    first_step_s: float = 300.0
    # A command waits for one step's border; the rest is what a swapping or throttled machine may
    # add.
    answer_s: float = 30.0
    answer_steps: float = 20.0  # times the longest step so far
    # Up for so long, the next death counts as the first again.
    healthy_s: float = 60.0
    first_wait_s: float = 1.0
    # A machine short of memory is not helped by a process that imports torch every second.
    longest_wait_s: float = 60.0
    restarts: int = MAX_TASK_RESTARTS


class TaskFailure(msgspec.Struct, frozen=True, kw_only=True):
    """What a person must mend: one sentence without its full stop, what to do, and the traceback
    where there is one.

    `passes` says that it may pass without a person: then it is tried for ever.
    """

    what: str
    fix: str = ""
    trace: str = ""
    passes: bool = False


class RestartPolicy:
    """Counts a trainer's ends."""

    def __init__(self, patience: WorkerTimeouts) -> None:
        self._patience = patience
        self._wait_s = patience.first_wait_s
        self.count = 0  # of all restarts
        self.failures = 0  # of the task itself, since it last worked

    def ended(self, failure: TaskFailure | None, up_s: float) -> float | None:
        """A life ended after `up_s` seconds of being up.

        Returns the pause before the next one, None when there is none.
        """
        patience = self._patience
        if up_s >= patience.healthy_s:
            self._wait_s = patience.first_wait_s
        if up_s >= FORGIVEN_S:
            self.failures = 0
        if failure is not None and not failure.passes:
            self.failures += 1
            if self.failures > patience.restarts:
                return None
        self.count += 1
        wait_s, self._wait_s = self._wait_s, min(2 * self._wait_s, patience.longest_wait_s)
        return wait_s
