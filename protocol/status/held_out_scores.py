"""The held-out loss of each certificate, from the scores of its members.

A member scores the anchor of a certificate on its own share of the held-out samples. The loss of
the certificate is the mean over the shares, weighted by samples. Each member counts once for a
certificate: its newest score replaces an older one.

Scores are claims. Only members of the certificate count, so keys that cost nothing change nothing.
No member weighs more than `MAX_WEIGHT` times the median member.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median_low

import msgspec

from protocol.identity import PeerId
from protocol.status.curve import ThinnedCurve
from protocol.status.figures import finite, loss, whole
from protocol.status.run_records import KEPT_ROUNDS, HeldOutPoint

MAX_LOSS = 1e12
"""A claimed loss beyond this counts as this, so that sums and drawings stay finite."""

MAX_WEIGHT = 4
"""How many times the median member's samples one member may weigh.

Honest shares differ by one sample, or where a member had time for a part of its share.
"""

RISING_ROUNDS = 5
"""Scored rounds in which the held-out loss rises before the verdict says so.

The loss of one round to the next moves either way by chance. Five rises in a row of a falling loss
come by chance once in thousands of rounds.
"""


class ScoredRound(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate whose members may still send scores.

    `samples` are those certified up to and with the certificate. `training` is the loss that the
    members claim for their own data. `scores` has the loss and the samples of each scorer.
    """

    number: int
    at: float
    samples: int
    training: float | None
    members: frozenset[PeerId]
    scores: dict[PeerId, tuple[float, int]]

    def point(self) -> HeldOutPoint | None:
        """Return the mean of the scores; None without any."""
        if not self.scores:
            return None
        limit = MAX_WEIGHT * median_low(samples for _, samples in self.scores.values())
        weights = [min(samples, limit) for _, samples in self.scores.values()]
        total = sum(
            claimed * weight
            for (claimed, _), weight in zip(self.scores.values(), weights, strict=True)
        )
        return HeldOutPoint(
            number=self.number,
            at=self.at,
            samples=self.samples,
            loss=total / sum(weights),
            training=self.training,
            scored=whole(sum(samples for _, samples in self.scores.values())),
            scorers=len(self.scores),
        )


class HeldOutScores:
    """The scores of a run's certificates.

    The last `KEPT_ROUNDS` certificates accept scores. Older ones are points of the curve, and do
    not change any more.
    """

    def __init__(self) -> None:
        # By certificate, the oldest first.
        self._open: dict[str, ScoredRound] = {}
        self._closed: ThinnedCurve[HeldOutPoint] = ThinnedCurve()

    def certified(self, certificate: str, round_: ScoredRound) -> None:
        """Accept scores of another certificate."""
        self._open.setdefault(certificate, round_)
        while len(self._open) > KEPT_ROUNDS:
            point = self._open.pop(next(iter(self._open))).point()
            if point is not None:
                self._closed.add(point)

    def score(self, certificate: str, peer: PeerId, claimed: float, samples: int) -> bool:
        """Note a score. Returns whether it counts and says something new."""
        known = self._open.get(certificate)
        value = finite(claimed)
        if known is None or value is None or samples < 1 or peer not in known.members:
            return False
        score = (min(max(value, -MAX_LOSS), MAX_LOSS), whole(samples))
        if known.scores.get(peer) == score:
            return False
        known.scores[peer] = score
        return True

    def of(self, certificate: str) -> HeldOutPoint | None:
        """Return the held-out loss of one of the last certificates; None where it has no score."""
        known = self._open.get(certificate)
        return known.point() if known else None

    def points(self) -> tuple[HeldOutPoint, ...]:
        """Return all points, oldest first."""
        fresh = (known.point() for known in self._open.values())
        return (*self._closed.points(), *(point for point in fresh if point is not None))


def overfitting(points: Sequence[HeldOutPoint]) -> str:
    """Return a sentence where the held-out loss rises and the training loss falls; else ""."""
    last = _risen(points)
    first, newest = (last[0], last[-1]) if last else (None, None)
    if (
        first is None
        or newest is None
        or first.training is None
        or newest.training is None
        or newest.training >= first.training
    ):
        return ""
    return (
        f"The held-out loss rose for {RISING_ROUNDS} scored rounds"
        f" ({loss(first.loss)} → {loss(newest.loss)}) while the members' training loss fell"
        f" ({loss(first.training)} → {loss(newest.training)}): the model learns its training data"
        " by heart. More data, a smaller model or an earlier end of the run help"
    )


def rising(points: Sequence[HeldOutPoint]) -> str:
    """Return a sentence where the held-out loss rises; else ""."""
    last = _risen(points)
    if not last:
        return ""
    return (
        f"The loss on held-out samples rose for {RISING_ROUNDS} scored rounds"
        f" ({loss(last[0].loss)} → {loss(last[-1].loss)}): the model gets worse. See who was"
        " clipped or is not trusted, or lower [inner] learning_rate"
    )


def _risen(points: Sequence[HeldOutPoint]) -> Sequence[HeldOutPoint]:
    """Return the last points where each is above the one before; else none."""
    last = points[-RISING_ROUNDS - 1 :]
    rises = all(after.loss > before.loss for before, after in pairwise(last))
    return last if len(last) > RISING_ROUNDS and rises else ()
