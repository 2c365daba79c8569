"""How large a slice each member reduces, so that the slowest link bounds the round as little as the
arithmetic allows.

A round has two transfers with the Cut between them. Of a vector of size 1, with k members, member i
that reduces f_i

    scatter   sends 1 - f_i               receives (k - 1) f_i
    gather    sends (k - 1) f_i           receives 1 - f_i

so that with u_i and d_i what its link carries up and down, the scatter takes S = max((1 - f_i) /
u_i, (k - 1) f_i / d_i), the gather G = max((k - 1) f_i / u_i, (1 - f_i) / d_i), and the round S +
G. Minimized here; it is a linear program, so the least S + G is found by searching one of the two
and bisecting the other.

hivemind minimizes max((1 + (k - 2) f_i) / b_i), the whole volume over one bandwidth: right where
scatter and gather overlap. With a Cut they cannot, and a member that reduces nothing, which that
formula likes for slow links, would be waited for twice. Where every link is as fast up as down,
equal slices are the best there are; where up is slower, as at most homes, the slow one reduces
less. Of the many ways to divide the rest equally fast, the most even one is taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import msgspec

# Of each search: G to a part in 2^32, S to one in 400,000.
STEPS = 32
# Of a level that many slices have: to what a float tells.
HALVINGS = 50
# A plan is made once and checked a few times; in a simulated world by every node.
PLANS_KEPT = 64
# Of the median: a claim beyond moves no more work than this, whoever makes it.
LEAST_SHARE = 1 / 64
UNKNOWN = 0


class _Class(msgspec.Struct, frozen=True):
    """Members with the same links, and how many they are."""

    up: float
    down: float
    count: int


def best_shares(ups: Sequence[int], downs: Sequence[int]) -> list[float]:
    """The fractions f_i of the vector, each at least 0, together 1, for links of `ups` and `downs`
    bits a second; 0 is not measured.

    Pure Python floats and the four operations: the same on every machine.
    """
    return list(_best_shares(tuple(ups), tuple(downs)))


@lru_cache(PLANS_KEPT)
def _best_shares(ups: tuple[int, ...], downs: tuple[int, ...]) -> tuple[float, ...]:
    members = len(ups)
    equal = (1.0 / members,) * members
    links = _known(ups, downs)
    classes = [_Class(up, down, count) for (up, down), count in sorted(Counter(links).items())]
    if members < 3 or len(classes) == 1:
        # Two members send half to each other, whatever their links.
        return equal
    others = members - 1
    # No better S is beyond, since S + G would be longer than with equal slices.
    low, high = 0.0, 2 * _time(equal, links)
    for _ in range(STEPS):  # S + G is convex in S
        one, two = low + (high - low) / 3, high - (high - low) / 3
        if one + _least_gather(one, classes, others) <= two + _least_gather(two, classes, others):
            high = two
        else:
            low = one
    gather = _least_gather(high, classes, others)
    if not _possible(high, gather, classes, others):
        return equal
    bounds = {(group.up, group.down): _bounds(high, gather, group, others) for group in classes}
    least, most = ([bounds[link][i] for link in links] for i in (0, 1))
    shares = _alike(least, most)
    return shares if _time(shares, links) < _time(equal, links) else equal


def _alike(least: Sequence[float], most: Sequence[float]) -> tuple[float, ...]:
    """Of all shares within these bounds, together 1, those whose largest is smallest: a path, too,
    bounds how long the largest takes.
    """
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if sum(min(max(middle, a), b) for a, b in zip(least, most, strict=True)) < 1:
            low = middle
        else:
            high = middle
    return tuple(min(max(high, a), b) for a, b in zip(least, most, strict=True))


def round_time(shares: Sequence[float], ups: Sequence[int], downs: Sequence[int]) -> float:
    """S + G for a vector of one bit: seconds, if the links are in bits a second."""
    return _time(shares, _known(ups, downs))


def _time(shares: Sequence[float], links: Sequence[tuple[float, float]]) -> float:
    others = len(shares) - 1
    scatter = max(
        max((1 - f) / up, others * f / down) for f, (up, down) in zip(shares, links, strict=True)
    )
    gather = max(
        max(others * f / up, (1 - f) / down) for f, (up, down) in zip(shares, links, strict=True)
    )
    return scatter + gather


def _known(ups: Sequence[int], downs: Sequence[int]) -> list[tuple[float, float]]:
    """What is not measured counts as the median of what is; claims far from the median count as
    less far.

    Three significant bits are all that a measurement is worth, and they bound how many classes of
    members there are.
    """
    ups, downs = [_rounded(bits) for bits in ups], [_rounded(bits) for bits in downs]
    measured = sorted(bits for bits in (*ups, *downs) if bits != UNKNOWN)
    middle = float(measured[len(measured) // 2]) if measured else 1.0

    def taken(bits: int) -> float:
        return (
            middle
            if bits == UNKNOWN
            else min(max(float(bits), middle * LEAST_SHARE), middle / LEAST_SHARE)
        )

    return [(taken(up), taken(down)) for up, down in zip(ups, downs, strict=True)]


def _rounded(bits: int) -> int:
    spare = max(bits.bit_length() - 3, 0)
    return bits >> spare << spare


def _bounds(scatter: float, gather: float, group: _Class, others: int) -> tuple[float, float]:
    """The least and the most that a member may reduce, when the two transfers may take so long."""
    least = max(0.0, 1 - scatter * group.up, 1 - gather * group.down)
    return least, min(1.0, scatter * group.down / others, gather * group.up / others)


def _possible(scatter: float, gather: float, classes: Sequence[_Class], others: int) -> bool:
    least, most = 0.0, 0.0
    for group in classes:
        a, b = _bounds(scatter, gather, group, others)
        if a > b:
            return False
        least += group.count * a
        most += group.count * b
    return least <= 1 <= most


def _least_gather(scatter: float, classes: Sequence[_Class], others: int) -> float:
    """The shortest gather that goes with this scatter; so long that it is never chosen when none
    does.
    """
    low, high = 0.0, 2 * others / min(min(group.up, group.down) for group in classes)
    if not _possible(scatter, high, classes, others):
        # Shorter for a longer scatter: the search is led to where there is one.
        return high * (3 + others) - scatter
    for _ in range(STEPS):
        middle = (low + high) / 2
        if _possible(scatter, middle, classes, others):
            high = middle
        else:
            low = middle
    return high
