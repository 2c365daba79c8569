"""Decides which anchors a node scores, so that scoring takes at most 2% of its time.

Members that score the same certificates make a mean over the same samples. So a node does not score
when it happens to have time: it scores each certificate whose number is a multiple of its stride, a
power of two. Members with other strides meet at the larger one. Where a whole share costs too much,
it scores one of 2, 4, 8, ... parts of the share, always the first: the parts of members with other
speeds contain each other.
"""

from __future__ import annotations

from math import ceil

import msgspec
from msgspec.structs import replace

from protocol.identity import PeerId
from protocol.ports.trainer import Evaluation, HeldOutShare

EVALUATION_SHARE = 0.02
"""The share of training time that scoring may take: less than one late step in fifty."""

MIN_INTERVAL_S, MAX_INTERVAL_S = 2.5, 60.0
INTERVALS = 10
"""The wanted seconds between two scores: a tenth of the time so far, within these bounds.

A new run gets a curve of small parts within its first minute, an old run exact points.
"""

MIN_SAMPLES = 64
"""The least samples of a score, where the share has as many. Fewer say little about a model."""

TRAINED_COST = 3
"""How many times as long a sample takes to train on as to score: forward and backward pass."""


class EvaluationBudget(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of scoring since `began_s`. Times are seconds of one monotonic clock."""

    began_s: float
    # The share of the time that scoring may take.
    limit: float = EVALUATION_SHARE
    spent_s: float = 0.0
    # Seconds for one sample: expected before the first score, then as the last one took.
    sample_s: float | None = None

    def share(
        self,
        *,
        members: tuple[PeerId, ...],
        me: PeerId,
        number: int,
        held_out: int,
        round_s: float,
        now_s: float,
    ) -> HeldOutShare | None:
        """Return what to score of the anchor of certificate `number`; None to skip it.

        Args:
            members: The members of the certificate. Each has another share.
            me: The node. A node that is no member of the certificate scores nothing.
            number: The number of the certificate.
            held_out: How many samples the task holds out.
            round_s: How long a round takes lately.
            now_s: The time.
        """
        if me not in members or not held_out:
            return None
        index, count = members.index(me), len(members)
        if index >= held_out:
            return None
        samples = ceil((held_out - index) / count)
        parts = 1
        while samples > parts * max(MIN_SAMPLES, self._affordable(now_s)):
            parts *= 2
        cost_s, stride = ceil(samples / parts) * (self.sample_s or 0.0), 1
        while self.limit * stride * round_s < cost_s and stride < 1 << 32:
            stride *= 2
        return HeldOutShare(index=index, count=count * parts) if number % stride == 0 else None

    def _affordable(self, now_s: float) -> float:
        """Return how many samples pay for themselves in the wanted time between two scores."""
        if not self.sample_s:
            return 0.0
        interval_s = min(max((now_s - self.began_s) / INTERVALS, MIN_INTERVAL_S), MAX_INTERVAL_S)
        return self.limit * interval_s / self.sample_s

    def expecting(self, samples_per_second: float) -> EvaluationBudget:
        """Return the budget of a node that trains at this speed and has scored nothing yet."""
        return replace(self, sample_s=1 / (TRAINED_COST * samples_per_second))

    def affords(self, now_s: float) -> bool:
        """Return whether what was spent leaves time for another score."""
        return self.limit > 0 and self.spent_s <= self.limit * (now_s - self.began_s)

    def scored(self, evaluation: Evaluation) -> EvaluationBudget:
        """Return the budget after a score."""
        return replace(
            self,
            spent_s=self.spent_s + evaluation.seconds,
            sample_s=evaluation.seconds / max(1, evaluation.samples),
        )


def first_shares(members: int, held_out: int) -> list[HeldOutShare]:
    """Return what `members` members score before they know what scoring costs."""
    names = tuple(str(index) for index in range(members))
    budget = EvaluationBudget(began_s=0.0)
    shares = [
        budget.share(members=names, me=me, number=1, held_out=held_out, round_s=1.0, now_s=0.0)
        for me in names
    ]
    return [share for share in shares if share is not None]
