"""The pace of a simulated trainer: which steps of a stretch are done at a virtual time."""

from __future__ import annotations

import trio


class StepClock:
    """Counts the steps of one stretch by time. `computed` of them were computed by its owner."""

    def __init__(self, batch_size: int, samples_per_second: float) -> None:
        self._batch_size = batch_size
        self.rate = samples_per_second
        self.running = False
        self.computed = 0
        self._max_steps: int | None = None
        # When step number `_first` of the stretch began; the pace is the same since.
        self._began_s = 0.0
        self._first = 0

    def begin(self, samples_per_second: float, max_steps: int | None) -> None:
        """Begin a stretch with a new step, now."""
        self.running, self._max_steps = True, max_steps
        self.rate, self.computed, self._first = samples_per_second, 0, 0
        self._began_s = trio.current_time()

    def go_on(self, samples_per_second: float) -> None:
        """Take another pace in a stretch that runs.

        The step in progress began at the old pace. At most one step ends at once.
        """
        if not self.running or samples_per_second == self.rate:
            return
        self._began_s, self._first = self._time_of(self.computed), self.computed
        self.rate = samples_per_second
        self._began_s = max(self._began_s, trio.current_time() - self.step_s)

    def renew(self, samples_per_second: float, max_steps: int | None) -> None:
        """Begin a stretch whose first step is the one in progress."""
        self._began_s, self.computed, self._first = self._time_of(self.computed), 0, 0
        self._max_steps = max_steps
        self.go_on(samples_per_second)

    def delay(self, seconds: float) -> None:
        """Make no progress for a while."""
        self._began_s += seconds

    @property
    def step_s(self) -> float:
        """How long a step takes."""
        return self._batch_size / self.rate if self.rate > 0 else float("inf")

    @property
    def steps(self) -> int:
        """Whole steps of this stretch done by now; 0 while the trainer is paused."""
        if not self.running:
            return 0
        steps = self._first + int((trio.current_time() - self._began_s) / self.step_s + 1e-9)
        steps = max(steps, self.computed)
        return steps if self._max_steps is None else min(steps, self._max_steps)

    @property
    def in_step(self) -> bool:
        """Whether a step is in progress."""
        return self.running and (self._max_steps is None or self.steps < self._max_steps)

    def next_end_s(self) -> float:
        """When the step in progress ends."""
        return self._time_of(self.steps + 1)

    def _time_of(self, steps: int) -> float:
        since = steps - self._first
        return self._began_s + (since * self.step_s if since else 0.0)
