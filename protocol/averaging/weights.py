"""The weight of each contribution: bounded, so that no single claim rules the mean.

Samples are claims. What bounds them (`docs/protocol.md`):

m   the lower median of the samples that the plan's voters offer
h   the lower median of a member's own last weights for a round of this length

In a run that strangers may join, a weight is at most 2 m and 2 h. Where five or more members
contribute, none exceeds a third of the other members' sum, and newcomers together weigh at most a
quarter of the members. In a run whose members are trusted by its owner, machines may differ much
more, and a weight is at most 64 m.

The first two bounds follow from a plan and the record before it, the others from the contributors
that the leader included. All figures are integers, except that rates are float64, and every
function is pure. The lower median of n values is element (n - 1) // 2 in ascending order.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TypeVar

# How far a weight may exceed the median of the voters, and the member's own median.
MEDIANS = 2
# The same for the median of the voters where members are trusted and machines differ 50-fold.
TRUSTED_MEDIANS = 64
# A member's own last weights whose median bounds the next one. With fewer there is no such bound:
# the weight of a first, short round would bound several whole rounds.
OWN_WEIGHTS = 8
# From this number of contributors on, a weight is at most a third of the others' sum. Fewer
# contributors of equal weight would all exceed that.
CONTRIBUTORS_FOR_THIRD = 5
# Newcomers together weigh at most a member weight over this.
NEWCOMERS_SHARE = 4

TRUSTED_POLICIES = frozenset({"invite", "allowlist"})
"""The admission policies under which the owner knows every member."""


Number = TypeVar("Number", int, float)


def lower_median(values: Sequence[Number]) -> Number:
    """Return element (n - 1) // 2 in ascending order. Raises `IndexError` for no values."""
    return sorted(values)[(len(values) - 1) // 2]


def median_samples(
    samples: Sequence[int], voters: Collection[int], newcomers: Collection[int]
) -> int:
    """Return m: the lower median of the voters' samples.

    Where no voter offers any, it is that of the members, and then that of all. A member that offers
    nothing does not count: an idle voter would make the median zero.

    Args:
        samples: what each member of the plan offers, not negative.
        voters: which of them vote, by index.
        newcomers: which of them are newcomers, by index.

    Returns:
        The median; 0 where nobody offers anything.
    """
    everyone = range(len(samples))
    for judges in (voters, [i for i in everyone if i not in newcomers], everyone):
        if offered := [samples[i] for i in judges if samples[i]]:
            return lower_median(offered)
    return 0


def usual_weight(own: Sequence[tuple[int, float]], round_s: float) -> float | None:
    """Return h: a member's usual weight for a round of `round_s` seconds.

    Args:
        own: (weight, recorded seconds of the round) of each certificate that listed the member,
            oldest first.
        round_s: the recorded seconds of this round.

    Returns:
        The lower median of the last weights per second, times this round; None below
        `OWN_WEIGHTS` of them.
    """
    if len(own) < OWN_WEIGHTS:
        return None
    return lower_median([weight / seconds for weight, seconds in own[-OWN_WEIGHTS:]]) * round_s


def claimed_weight(samples: int, median: int, usual: float | None, policy: str) -> int:
    """Return what remains of one claim: min(samples, 2 m, 2 h), or min(samples, 64 m).

    Args:
        samples: the claim.
        median: m.
        usual: h; None where the member's record is too short.
        policy: the run's admission policy.

    Returns:
        The weight: 0 for no samples, else at least 1.
    """
    if not samples:
        return 0
    if policy in TRUSTED_POLICIES:
        return max(1, min(samples, TRUSTED_MEDIANS * median))
    most = min(samples, MEDIANS * median)
    if usual is not None and most > MEDIANS * usual:
        most = math.floor(MEDIANS * usual)
    return max(1, most)


def weights_in(
    claimed: Sequence[int], newcomers: Collection[int], contributors: Sequence[int], policy: str
) -> tuple[int, ...]:
    """Return the weight of each contributor in the mean, in the order of `contributors`.

    Args:
        claimed: what `claimed_weight` left of each member of the plan.
        newcomers: which members of the plan are newcomers, by index.
        contributors: which of them the leader included, by index.
        policy: the run's admission policy.

    Returns:
        The weights, none above its claim, and none 0 whose claim is not.
    """
    weights = [claimed[i] for i in contributors]
    if policy in TRUSTED_POLICIES:
        return tuple(weights)
    new = [k for k, i in enumerate(contributors) if i in newcomers]
    members = [k for k, i in enumerate(contributors) if i not in newcomers]
    # Newcomers have the tighter bound, and do not count among the others of a member. With one
    # founder and four strangers, a third of what the bounded newcomers weigh would bound the
    # founder, whose quarter bounds the newcomers, and all weights would shrink round by round.
    group = members or range(len(weights))
    most = _third_of_others([weights[k] for k in group])
    for k in group:
        weights[k] = min(weights[k], most)
    together, theirs = sum(weights[k] for k in new), sum(weights[k] for k in members)
    if theirs and NEWCOMERS_SHARE * together > theirs:
        for k in new:
            if weights[k]:
                weights[k] = max(1, weights[k] * theirs // (NEWCOMERS_SHARE * together))
    return tuple(weights)


def _third_of_others(weights: Sequence[int]) -> int:
    """Return the greatest bound L such that no min(weight, L) exceeds a third of the other ones.

    That is 4 L <= the sum of all min(weight, L). Three weights above L at most can break it.
    """
    ordered = sorted(weights, reverse=True)
    if len([weight for weight in ordered if weight]) < CONTRIBUTORS_FOR_THIRD:
        return max(ordered, default=0)
    rest = sum(ordered)
    for above in range(3):
        most = rest // (4 - above)
        if ordered[above] <= most:
            return max(1, most if above else ordered[0])
        rest -= ordered[above]
    return max(1, rest)
