"""How fast a node trains, and with what loss, as others are told.

A trainer's report counts from the last time it was given an anchor. A beacon goes out whenever the
phase changes, which is just then: half of all beacons said 0 samples a second and no loss. So a
beacon says what the trainer did last, until it has done something since.
"""

from __future__ import annotations

import msgspec

from protocol.ports.trainer import Progress, Trainer

# For how long what was done last is news: a round's averaging takes seconds, its deadlines are 65 s
# together.
LATELY_S = 60.0


class TrainingSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """What was done in the last stretch of training that did anything."""

    samples_per_second: float = 0.0
    loss: float | None = None


class RecentTrainingSpeed:
    """One trainer's. Times are seconds of one monotonic clock."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._known, self._seen_s, self._life = TrainingSpeed(), 0.0, trainer.restarts
        self._last: Progress | None = None

    def now(self, now: float) -> TrainingSpeed:
        """What to tell at `now`. Nothing, once the trainer died or did nothing for a while."""
        progress = self._trainer.progress()
        if progress.steps and progress != self._last:
            self._known = TrainingSpeed(
                samples_per_second=progress.samples_per_second, loss=progress.loss
            )
            self._seen_s = now
        elif self._trainer.restarts != self._life or now - self._seen_s > LATELY_S:
            self._known = TrainingSpeed()
        self._last, self._life = progress, self._trainer.restarts
        return self._known
