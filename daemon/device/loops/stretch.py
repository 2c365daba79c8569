"""A stretch of training: how many steps are left, and the figures for progress."""

from __future__ import annotations

from daemon.device.loops.work_totals import NO_WORK, WorkTotals
from protocol.ports.trainer import Progress


class Stretch:
    """The steps since the last `train`, `resume` or `shift`. It begins without steps left."""

    def __init__(self) -> None:
        # None means no limit.
        self._steps_left: int | None = 0
        self._work = NO_WORK
        # Since the last report.
        self._unreported = NO_WORK

    @property
    def training(self) -> bool:
        """Whether steps are left."""
        return self._steps_left is None or self._steps_left > 0

    def begin(self, max_steps: int | None) -> None:
        """Begin a stretch of at most `max_steps`; None means no limit."""
        self._steps_left, self._work = max_steps, NO_WORK

    def end(self) -> None:
        """Leave no steps."""
        self._steps_left = 0
        self._unreported = NO_WORK

    def add(self, step: WorkTotals) -> None:
        """Count a finished step."""
        self._work = self._work.plus(step)
        self._unreported = self._unreported.plus(step)
        if self._steps_left:
            self._steps_left -= 1

    def progress(self) -> Progress:
        """Return the figures. `loss` is the mean since the last call."""
        unreported, self._unreported = self._unreported, NO_WORK
        work = self._work
        return Progress(
            steps=work.steps,
            samples=work.samples,
            loss=unreported.loss,
            samples_per_second=work.samples / work.seconds if work.seconds else 0.0,
        )
