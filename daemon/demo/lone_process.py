"""Runs the lone machine of a demo beside the swarm, and writes the reference curve of the page."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from daemon.demo.comparison import Comparison, compare, pace_of, reference_curve
from daemon.demo.lone_machine import read_curve
from daemon.demo.process import DemoProcess, Lifeline
from daemon.observer.reference_file import write_reference
from protocol.status import Status

MODULE = "daemon.demo.lone_machine"
REFERENCE_FILE = "reference.json"
# The lone machine shares the cores with the swarm, and may be behind a member when the swarm has
# ended. It then has the cores for itself.
CATCH_UP_S = 30.0
CATCH_UP_LOOK_S = 0.5


class LoneMachine:
    """The process of the lone machine, its curve, and the pace of the swarm's members."""

    def __init__(self, root: Path, members: int) -> None:
        """Starts nothing. `root` gets the home and the reference curve."""
        self._members = members
        self.process = DemoProcess("alone", root / "alone")
        self.reference = root / REFERENCE_FILE
        self._began_at: float | None = None
        self._pace = 0.0
        # The status with the most certificates that were scored.
        self._best: Status | None = None
        self.started = False

    def start(
        self, lifeline: Lifeline, settings: Mapping[str, Mapping[str, object]], run: Path | None
    ) -> None:
        """Start the process."""
        self.started = True
        arguments = [*([str(run)] if run else []), "--members", str(self._members)]
        self.process.start(lifeline, settings, arguments, module=MODULE)

    def look(self, statuses: Mapping[str, Status | None]) -> None:
        """Follow the swarm: when it began to train, at what pace, and its held-out losses."""
        known = [status for status in statuses.values() if status is not None]
        training = [status for status in known if status.you.samples_per_second > 0]
        if self._began_at is None and training:
            self._began_at = min(status.as_of for status in training)
        self._pace = pace_of(known) or self._pace
        for status in known:
            if self._best is None or len(status.held_out) >= len(self._best.held_out):
                self._best = status
        if self.started and self._began_at is not None and self._pace > 0:
            curve = reference_curve(read_curve(self.process.home), self._pace, self._began_at)
            write_reference(self.reference, curve)

    def finish(self) -> Comparison | None:
        """Wait until the lone machine has done as many samples as a member, then compare.

        Returns None where the run has no held-out samples, or no certificate was scored.
        """
        best, began_at = self._best, self._began_at
        if not self.started or best is None or not best.held_out or began_at is None:
            return None
        wanted_s = best.held_out[-1].at - began_at
        deadline = time.monotonic() + CATCH_UP_S
        while True:
            curve = reference_curve(read_curve(self.process.home), self._pace, began_at)
            behind = not curve.points or curve.points[-1].seconds < wanted_s
            if not behind or not self.process.alive or time.monotonic() > deadline:
                return compare(best.held_out, curve, self._pace)
            time.sleep(CATCH_UP_LOOK_S)
