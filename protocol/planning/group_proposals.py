"""Rows of near members: an order in which neighbours are near each other, and where it is cut.

The order is that of the leaves of a tree: members are laid along the line between two that are far
apart, parted in its widest gap that is not near an end, and each part is parted again. Heights do
not count: an access that takes long is as long to everybody. Cutting the one order at different
places gives rows of any number, so the tree is made once for all proposals.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from protocol.network.coordinate import Coordinate
from protocol.network.network_snapshot import NetworkSnapshot

Groups = tuple[tuple[int, ...], ...]
"""Members by row, in the order of their ranks."""

Place = tuple[int, int, int]

# Partings, one within the other: more only when single members are peeled off, and then the order
# of ids does.
DEEPEST = 24
# Members within 2 ms of each other are not told apart by coordinates.
ONE_PLACE_US2 = 2_000**2
# Of a group at least goes to each side, so that the tree does not peel off single members.
MARGIN = 8
# A step in the order this much longer than the median one parts two clusters.
GAP = 6


# And it is at least this part of the longest step.
WIDEST = 3


class GroupBounds(msgspec.Struct, frozen=True, kw_only=True):
    """The least and the most members that a row may have."""

    least: int
    most: int


def near_order(places: Sequence[Coordinate | None]) -> tuple[int, ...]:
    """All members, near ones beside each other.

    Members nobody can place come last, in their own order.
    """
    cores = [(at.x_us, at.y_us, at.z_us) if at is not None else (0, 0, 0) for at in places]
    placed = [i for i, at in enumerate(places) if at is not None]
    order: list[int] = []
    if placed:
        _part(placed, cores, cores[placed[0]], 0, order)
    return (*order, *(i for i, at in enumerate(places) if at is None))


def _part(
    group: list[int], cores: Sequence[Place], last: Place, depth: int, order: list[int]
) -> None:
    """Append the members of `group` to `order`, beginning at the end that is nearer to `last`."""
    one = max(group, key=lambda i: (_square(cores[i], cores[group[0]]), -i))
    two = max(group, key=lambda i: (_square(cores[i], cores[one]), -i))
    if depth == DEEPEST or _square(cores[one], cores[two]) <= ONE_PLACE_US2:
        order.extend(group)
        return
    if _square(cores[two], last) < _square(cores[one], last):
        one, two = two, one
    # Linear in the place.
    along = {i: _square(cores[i], cores[one]) - _square(cores[i], cores[two]) for i in group}
    line = sorted(group, key=lambda i: (along[i], i))
    margin = max(1, len(line) // MARGIN)
    cut = max(
        range(margin, len(line) - margin + 1),
        key=lambda at: (along[line[at]] - along[line[at - 1]], -at),
    )
    first, rest = line[:cut], line[cut:]
    _part(first, cores, last, depth + 1, order)
    _part(rest, cores, cores[order[-1]], depth + 1, order)


def _square(a: Place, b: Place) -> int:
    return (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2


class GroupProposer:
    """The one order of a view's members, and rows cut from it."""

    def __init__(self, view: NetworkSnapshot) -> None:
        self._view = view
        self.order = near_order([member.at for member in view.members])
        cores = [_core(view.members[i].at) for i in self.order]
        # steps[i]: how far it is from the i-th in the order to the one before it
        self._steps = [0, *(_square(a, b) for a, b in pairwise(cores))]
        typical = sorted(self._steps[1:])[(len(self.order) - 1) // 2] if len(self.order) > 1 else 0
        self._wide = max(GAP * GAP * typical, ONE_PLACE_US2, max(self._steps) // (WIDEST * WIDEST))
        self._clusters = self._find_clusters()

    def propose(self, count: int, bounds: GroupBounds) -> tuple[Groups, ...]:
        """Proposals of `count` rows: in even parts, and, of about as many, with clusters parted
        first where their size allows it.
        """
        most = bounds.most
        proposals = [self._ranked(_even(0, len(self.order), count))]
        if len(self._clusters) > 1 and count > 1:
            size = len(self.order) / count
            cuts: list[int] = []
            for start, stop in self._clusters:
                parts = max(int((stop - start) / size + 0.5), 1, -(-(stop - start) // most))
                cuts += [start, *_even(start, stop, parts)]
            aligned = self._ranked([cut for cut in cuts if cut])
            if min(len(row) for row in aligned) >= bounds.least:
                proposals.append(aligned)
        return tuple(dict.fromkeys(proposals))

    def _find_clusters(self) -> list[tuple[int, int]]:
        """Runs of the order without a gap in them.

        A member that stands alone goes with those before it: it may only be badly placed.
        """
        size = len(self.order)
        borders = [0]
        for i in range(2, size - 1):
            if (
                self._steps[i] > self._wide
                and self._steps[i + 1] <= self._wide
                and i - borders[-1] > 1
            ):
                borders.append(i)
        return list(pairwise([*borders, size]))

    def _ranked(self, cuts: Sequence[int]) -> Groups:
        borders = [0, *cuts, len(self.order)]
        if len(borders) == 2:
            return (tuple(sorted(self.order)),)
        return tuple(self._by_strength(self.order[a:b]) for a, b in pairwise(borders))

    def _by_strength(self, row: Sequence[int]) -> tuple[int, ...]:
        """Strong links first in every row, so that owners of one rank are alike and the weakest of
        a long row own nothing.
        """

        def strength(i: int) -> tuple[int, int, int]:
            member = self._view.members[i]
            return (
                -min(member.uplink_bps, member.downlink_bps),
                -member.uplink_bps - member.downlink_bps,
                i,
            )

        return tuple(sorted(row, key=strength))


def _even(start: int, stop: int, count: int) -> list[int]:
    """Where to cut `[start, stop)` into `count` parts whose sizes differ by one at most: everybody
    waits for the longest row.
    """
    return [start + (stop - start) * i // count for i in range(1, count)]


def _core(at: Coordinate | None) -> Place:
    return (at.x_us, at.y_us, at.z_us) if at is not None else (0, 0, 0)
