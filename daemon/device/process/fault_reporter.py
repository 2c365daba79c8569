"""Reports what a task could not do while its worker goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable

from daemon.device.messages import BatchUnusable, EvaluationUnable
from protocol.journal import BatchSkipped, JournalEvent, Warned

log = logging.getLogger("hypergpu.worker")


class TaskFaultReporter:
    """Turns the worker's reports into journal events, and logs the tracebacks."""

    def __init__(self, on_event: Callable[[JournalEvent], None]) -> None:
        self._on_event = on_event
        # The failures of evaluations that were reported: each comes again at every evaluation.
        self._unscored: set[str] = set()

    def batch_skipped(self, report: BatchUnusable) -> None:
        """Report a batch that training skipped."""
        if report.trace:
            log.warning("%s", report.trace)
        self._on_event(
            BatchSkipped(
                what=report.what,
                where=report.where,
                skipped=report.skipped,
                drawn=report.drawn,
                trace=report.trace,
            )
        )

    def not_scored(self, report: EvaluationUnable) -> None:
        """Report an evaluation that failed, once for each reason."""
        if report.what in self._unscored:
            return
        self._unscored.add(report.what)
        if report.trace:
            log.warning("%s", report.trace)
        message = f"{report.what}. The held-out loss stays unknown; training goes on."
        self._on_event(Warned(code="EVALUATION", message=message))

    def batch_part(self, samples: int, known: int) -> None:
        """Report that the device computes fewer samples at once than it did before."""
        if samples >= known:
            return
        message = (
            f"The device has too little memory for {known} samples at once. It now computes"
            f" {samples} at once; a step still has all of its samples."
        )
        self._on_event(Warned(code="BATCH_PART", message=message))
