"""The score of one audit, and the verdict over the last ones.

The advantage of a group is loss(anchor - reference) - loss(anchor - contribution), the mean over
the group's samples. The reference (`reference.py`) lowers the loss of every group as a contribution
does in general, so the difference shows what the contribution knows of its own samples. The score
compares the groups that the contributor names with groups that nobody drew. Everything but work on
the named samples scores about 0.5 or less.

TRUST 16 compares with loss(anchor) instead. How much training lowers a loss differs so much from
group to group that honest work of a young or a small model then scores 0.64, and a replayed mean
0.61 (`hypergpud bench audits`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

AUDITS = 5
"""The audits of one verdict, the last ones.

TRUST 16 has three. Of a small young model one score moves by 0.13 for honest work and by 0.17 for
noise: over three audits 3 in 1,000 honest contributors were rejected and 4 in 100 of noise
accepted (`hypergpud bench audits`). With these deviations, five audits of a normal distribution
reject less than 1 in 10,000 and accept 2 in 1,000; that was computed, not measured.
"""

FOR_FROM, AGAINST_BELOW = 0.75, 0.6
"""The bounds of a verdict. Between them, an earlier verdict stands.

Half of the steps score about 0.65: too little for a word in favour, and no fraud.
"""

GROSS_AUDITS, GROSS_BELOW = 3, 0.35
"""Three audits below this speak against a contributor at once: zeros, or work that does harm."""

NO_WORK = 0.5
"""The score of an offer that names too little data, or whose contributor does not serve it.

It is the score of no work at all. A node names its data again after the next certificate, so that
one such audit between two good ones does not turn a verdict.
"""


def score_of(own: Sequence[float], others: Sequence[float]) -> float:
    """Return the share of the own groups whose advantage is above the median of the others'.

    An advantage that is not finite counts as the lowest: such a contribution destroys the model.
    Equal ones are not above.

    Raises:
        ValueError: one of the sides is empty.
    """
    if not own or not others:
        raise ValueError("an audit compares at least one group of each kind")
    lowest = float("-inf")
    ordered = sorted(each if isfinite(each) else lowest for each in others)
    half = len(ordered) // 2
    median = ordered[half] if len(ordered) % 2 else _between(ordered[half - 1], ordered[half])
    return sum(isfinite(each) and each > median for each in own) / len(own)


def _between(low: float, high: float) -> float:
    return (low + high) / 2 if isfinite(low) else low


def verdict(scores: Sequence[float]) -> bool | None:
    """Return whether the last scores speak for the contributor.

    Returns:
        True for, False against; None where they are too few, or between the bounds.
    """
    last = scores[-GROSS_AUDITS:]
    if len(last) == GROSS_AUDITS and sum(last) < GROSS_AUDITS * GROSS_BELOW:
        return False
    last = scores[-AUDITS:]
    if len(last) < AUDITS:
        return None
    mean = sum(last) / AUDITS
    return True if mean >= FOR_FROM else False if mean < AGAINST_BELOW else None
