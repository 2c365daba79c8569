"""The size of the slice that each member reduces: the sizes that make the round shortest.

A round has two transfers with the inclusion between them. For a vector of size 1 and k members,
member i, which reduces the fraction f_i of the vector,

    scatter   sends 1 - f_i               receives (k - 1) f_i
    gather    sends (k - 1) f_i           receives 1 - f_i

Let u_i and d_i be the rates of its link up and down. The scatter takes

    S = max over i of max((1 - f_i) / u_i, (k - 1) f_i / d_i)

and the gather

    G = max over i of max((k - 1) f_i / u_i, (1 - f_i) / d_i).

This module minimizes S + G. That is a linear program: a ternary search over S, with a bisection
that finds G for each S, reaches the least sum.

hivemind minimizes max((1 + (k - 2) f_i) / b_i), the whole volume over one bandwidth. That is right
where scatter and gather overlap. With an inclusion between them they cannot overlap. That formula
often gives slow links nothing to reduce, and the round would wait for such a link twice. If every
link is as fast up as down, equal slices are optimal. If up is slower, as in most homes, a member
with a slow uplink reduces less. Several divisions may be equally fast: the most even one is chosen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import msgspec

# Steps of each search: they find G to a part in 2^32 and S to a part in 400,000.
STEPS = 32
# Steps that find the largest slice to the precision of a float.
HALVINGS = 50
# A plan is made once and checked a few times; in a simulated world, every node checks it.
PLANS_KEPT = 64
# Rates count from this share of the median up to the median over this share. So no claim moves more
# work than that.
LEAST_SHARE = 1 / 64
UNKNOWN = 0


class _Class(msgspec.Struct, frozen=True):
    """The number of members whose links have these rates."""

    up: float
    down: float
    count: int


def best_shares(ups: Sequence[int], downs: Sequence[int]) -> list[float]:
    """Return the fraction of the vector that each member reduces; the fractions add up to 1.

    Only the four operations on Python floats are used, which give the same result on every machine.

    Args:
        ups: the members' uplinks in bits a second; 0 where not measured.
        downs: the downlinks, likewise.
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
    # With a longer S, S + G would be longer than with equal slices.
    low, high = 0.0, 2 * _time(equal, links)
    # S + G is convex in S.
    for _ in range(STEPS):
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
    """Return the shares within these bounds, together 1, whose largest share is smallest.

    A path also bounds how long the largest slice takes.
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
    """Return S + G in seconds for a vector of one bit; links are in bits a second."""
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
    """Return the rates by which the slices are sized.

    An unmeasured rate counts as the median of the measured ones, and the distance from the median
    is bounded. Rates have three significant bits: a measurement has no more, and few different
    rates mean few classes of members.
    """
    ups, downs = [_rounded(bits) for bits in ups], [_rounded(bits) for bits in downs]
    measured = sorted(bits for bits in (*ups, *downs) if bits != UNKNOWN)
    middle = float(measured[len(measured) // 2]) if measured else 1.0

    def bounded(bits: int) -> float:
        return (
            middle
            if bits == UNKNOWN
            else min(max(float(bits), middle * LEAST_SHARE), middle / LEAST_SHARE)
        )

    return [(bounded(up), bounded(down)) for up, down in zip(ups, downs, strict=True)]


def _rounded(bits: int) -> int:
    spare = max(bits.bit_length() - 3, 0)
    return bits >> spare << spare


def _bounds(scatter: float, gather: float, group: _Class, others: int) -> tuple[float, float]:
    """Return the least and the most that a member may reduce within these transfer times."""
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
    """Return the shortest gather for this scatter.

    If no gather is possible, return a time so long that the search never chooses it.
    """
    low, high = 0.0, 2 * others / min(min(group.up, group.down) for group in classes)
    if not _possible(scatter, high, classes, others):
        # The time falls with the scatter, which leads the search to a possible gather.
        return high * (3 + others) - scatter
    for _ in range(STEPS):
        middle = (low + high) / 2
        if _possible(scatter, middle, classes, others):
            high = middle
        else:
            low = middle
    return high
