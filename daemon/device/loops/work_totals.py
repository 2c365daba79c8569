"""Counts the work of a training loop: what was handed over, and what came after."""

from __future__ import annotations

import msgspec


class WorkTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Finished steps, their samples, the sum of the losses over the samples, and the time.

    `dropped` samples were lost, because their parameters were not finite.
    """

    steps: int = 0
    samples: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    dropped: int = 0

    @property
    def loss(self) -> float | None:
        """The mean loss over the samples, or None without any."""
        return self.loss_sum / self.samples if self.samples else None

    def plus(self, more: WorkTotals) -> WorkTotals:
        """Both together."""
        return WorkTotals(
            steps=self.steps + more.steps,
            samples=self.samples + more.samples,
            loss_sum=self.loss_sum + more.loss_sum,
            seconds=self.seconds + more.seconds,
            dropped=self.dropped + more.dropped,
        )


NO_WORK = WorkTotals()


class WorkCount:
    """The work since the last hand-over that the node received.

    `handed` was handed over, and the node may not have received it. `fresh` came after.
    """

    def __init__(self) -> None:
        self.handed = NO_WORK
        self.fresh = NO_WORK

    @property
    def all(self) -> WorkTotals:
        """The work that the next hand-over has, if the node did not receive the last one."""
        return self.handed.plus(self.fresh)

    def add(self, step: WorkTotals) -> None:
        """Count a finished step."""
        self.fresh = self.fresh.plus(step)

    def hand_over(self) -> WorkTotals:
        """Return all work. `acknowledge` says later whether the node received it."""
        self.handed, self.fresh = self.all, NO_WORK
        return self.handed

    def acknowledge(self, received: bool) -> None:
        """Forget what the node received. Otherwise it stays part of the next hand-over."""
        if received:
            self.handed = NO_WORK
        else:
            self.handed, self.fresh = NO_WORK, self.all

    def forget(self) -> None:
        """Forget everything."""
        self.handed = self.fresh = NO_WORK
