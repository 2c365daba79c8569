"""The lies of members that hand over other work than the samples that they name.

They vote, sum and serve as honest members do. `trust_lies.py` has those that also claim too much.
"""

from __future__ import annotations

from collections import deque
from typing import ClassVar

import numpy as np
from msgspec.structs import replace

from protocol.averaging.vector_layout import Vector
from protocol.ports.trainer import Work
from simulator.faults.liar import Liar
from simulator.faults.trust_lies import TrustLiar

# How many hand-overs ago its work was made. A round has two of them.
STALE_BY = 6


class WorkLiar(TrustLiar):
    """Hands over something in place of its work."""

    unnoticed = "nothing about an offer is malformed, and work audits name it after a few rounds"

    def work(self, work: Work) -> Work:
        instead = self.instead(work) if work.samples else None
        if instead is not None:
            work.delta[:] = instead
        return work

    def instead(self, work: Work) -> Vector | None:
        """The delta to hand over; None for the true one."""
        return None


class Stale(WorkLiar):
    """Hands over its own work of earlier rounds."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._made: deque[Vector] = deque(maxlen=STALE_BY)

    def instead(self, work: Work) -> Vector | None:
        self._made.append(work.delta.copy())
        return self._made[0]


class Foreign(WorkLiar):
    """Hands over what another member offered last."""

    def instead(self, work: Work) -> Vector | None:
        offers = self.situation.offers()
        return offers[0] if offers else None


class ReplayedMean(WorkLiar):
    """Hands over the mean of what the others offered last."""

    def instead(self, work: Work) -> Vector | None:
        offers = self.situation.offers()
        return np.mean(np.stack(offers), axis=0, dtype=np.float32) if offers else None


class TenthOfSteps(TrustLiar):
    """Trains on a tenth of the samples that it names and claims."""

    unnoticed = WorkLiar.unnoticed
    named_per_trained: ClassVar[int] = 10

    def work(self, work: Work) -> Work:
        times = self.named_per_trained
        return replace(
            work,
            samples=work.samples * times,
            steps=work.steps * times,
            drawn=work.drawn * times,
        )


class HalfOfSteps(TenthOfSteps):
    """Trains on half of the samples that it names and claims."""

    unnoticed = "half of the steps score too little for a word in favour, and too much for fraud"
    named_per_trained = 2


WORK_LIES: dict[str, type[Liar]] = {
    "stale_work": Stale,
    "foreign_work": Foreign,
    "replayed_mean": ReplayedMean,
    "tenth_of_steps": TenthOfSteps,
    "half_of_steps": HalfOfSteps,
}
