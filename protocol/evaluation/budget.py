"""Decides which anchors a node scores, so that scoring takes at most 2% of its time.

Members that score the same certificates make a mean over the same samples. So a node does not score
when it happens to have time: it scores each certificate whose number is a multiple of its stride, a
power of two. Members with other strides meet at the larger one.
"""

from __future__ import annotations

from math import ceil

import msgspec
from msgspec.structs import replace

from protocol.identity import PeerId
from protocol.ports.trainer import Evaluation, HeldOutShare

EVALUATION_SHARE = 0.02
"""The share of training time that scoring may take: less than one late step in fifty."""

SCORED_EVERY_S = 60.0
"""A node whose whole share costs more than the budget of this time scores a part of the share.

A curve with a point a minute shows a run of hours. Most runs are that long.
"""

PROBED_PARTS = 16
"""The first score takes this part of the share, because its cost is not known yet."""


class EvaluationBudget(msgspec.Struct, frozen=True, kw_only=True):
    """What scoring has cost since `began_s`. Times are seconds of one monotonic clock."""

    began_s: float
    spent_s: float = 0.0
    # Seconds for one sample; None before the first score.
    sample_s: float | None = None

    def share(
        self, *, members: tuple[PeerId, ...], me: PeerId, number: int, held_out: int, round_s: float
    ) -> HeldOutShare | None:
        """Return what to score of the anchor of certificate `number`; None to skip it.

        Args:
            members: The members of the certificate. Each has another share.
            me: The node. A node that is no member of the certificate scores nothing.
            number: The number of the certificate.
            held_out: How many samples the task holds out.
            round_s: How long a round takes lately.
        """
        if me not in members or not held_out:
            return None
        index, count = members.index(me), len(members)
        if index >= held_out:
            return None
        samples = ceil((held_out - index) / count)
        if self.sample_s is None:
            return HeldOutShare(index=index, count=count * min(PROBED_PARTS, samples))
        affordable = max(1, int(EVALUATION_SHARE * SCORED_EVERY_S / max(self.sample_s, 1e-9)))
        parts = ceil(samples / affordable)
        cost_s = ceil(samples / parts) * self.sample_s
        stride = 1
        while EVALUATION_SHARE * stride * round_s < cost_s and stride < 1 << 32:
            stride *= 2
        return HeldOutShare(index=index, count=count * parts) if number % stride == 0 else None

    def affords(self, now_s: float) -> bool:
        """Return whether what was spent leaves time for another score."""
        return self.spent_s <= EVALUATION_SHARE * (now_s - self.began_s)

    def scored(self, evaluation: Evaluation) -> EvaluationBudget:
        """Return the budget after a score."""
        return replace(
            self,
            spent_s=self.spent_s + evaluation.seconds,
            sample_s=evaluation.seconds / max(1, evaluation.samples),
        )
