"""How fast a node trains, and with what loss, as its beacons report.

A trainer counts from the last time it received an anchor. A beacon goes out whenever the phase
changes, which is at the same moment. So half of all beacons would report 0 samples per second and
no loss. Therefore a beacon reports the last stretch of training that did anything.
"""

from __future__ import annotations

import msgspec

from protocol.ports.trainer import Progress, Trainer

# For how long the last stretch is reported. A round's averaging takes seconds, and its deadlines
# are 65 s together.
RECENT_S = 60.0


class TrainingSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """The speed and the loss of the last stretch of training that did anything."""

    samples_per_second: float = 0.0
    loss: float | None = None


class RecentTrainingSpeed:
    """The recent speed of one trainer. Times are seconds of one monotonic clock."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._known, self._seen_s, self._life = TrainingSpeed(), 0.0, trainer.restarts
        self._last: Progress | None = None

    def now(self, now: float) -> TrainingSpeed:
        """The speed to report at `now`; none after the trainer died or did nothing for a while."""
        progress = self._trainer.progress()
        if progress.steps and progress != self._last:
            self._known = TrainingSpeed(
                samples_per_second=progress.samples_per_second, loss=progress.loss
            )
            self._seen_s = now
        elif self._trainer.restarts != self._life or now - self._seen_s > RECENT_S:
            self._known = TrainingSpeed()
        self._last, self._life = progress, self._trainer.restarts
        return self._known
