"""Proposals of groups whose members are near each other.

Members are put into one order in which neighbours are near each other. Dividing that order at
different places gives any number of groups, so the order is made once for all proposals.

The order is that of the leaves of a tree. Members are laid along the line between two that are far
apart, split at the widest gap that is not near an end, and each part is split again. Heights of
coordinates do not count: a slow access is equally slow to all members.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from protocol.network.coordinate import Coordinate
from protocol.network.network_snapshot import NetworkSnapshot

Groups = tuple[tuple[int, ...], ...]
"""The members of each group, in the order of their positions."""

Place = tuple[int, int, int]

DEEPEST = 24
"""The deepest split. Only splits that separate single members would go deeper."""

SAME_PLACE_US2 = 2_000**2
"""The square of 2 ms. Coordinates cannot tell members within that distance apart."""

MARGIN = 8
"""A split leaves one member in this many on each side: it should not separate single members."""

GAP = 6
"""Two clusters are parted by a step in the order that is this many times the median step."""

WIDEST = 3
"""Such a step also has at least the longest step divided by this."""


class GroupBounds(msgspec.Struct, frozen=True, kw_only=True):
    """The least and the most members that a group may have."""

    least: int
    most: int


def fewest_groups(members: int, bounds: GroupBounds) -> int:
    """Return the smallest number of groups that keep `bounds.most`."""
    return -(-members // bounds.most)


def most_groups(members: int, bounds: GroupBounds) -> int:
    """Return the largest number of groups that keep `bounds.least`, or else the fewest."""
    return max(fewest_groups(members, bounds), members // bounds.least)


def nearest_count(members: int, size: int, bounds: GroupBounds) -> int:
    """Return the allowed number of groups that comes nearest to groups of `size` members."""
    fewest, most = fewest_groups(members, bounds), most_groups(members, bounds)
    return min(max((2 * members + size) // (2 * size), fewest, 1), most)


def equal_shares(groups: Groups) -> tuple[float, ...]:
    """Divide the vector equally among the positions that every group has."""
    positions = min(len(group) for group in groups)
    return (1 / positions,) * positions


def near_order(places: Sequence[Coordinate | None]) -> tuple[int, ...]:
    """Return all members, with near ones beside each other.

    Members without a place come last, in their own order.
    """
    cores = [_core(at) for at in places]
    placed = [i for i, at in enumerate(places) if at is not None]
    order: list[int] = []
    if placed:
        _split(placed, cores, cores[placed[0]], 0, order)
    return (*order, *(i for i, at in enumerate(places) if at is None))


def _split(
    part: list[int], cores: Sequence[Place], last: Place, depth: int, order: list[int]
) -> None:
    """Append the members of `part` to `order`, beginning at the end that is nearer to `last`."""
    one = max(part, key=lambda i: (_square(cores[i], cores[part[0]]), -i))
    two = max(part, key=lambda i: (_square(cores[i], cores[one]), -i))
    if depth == DEEPEST or _square(cores[one], cores[two]) <= SAME_PLACE_US2:
        order.extend(part)
        return
    if _square(cores[two], last) < _square(cores[one], last):
        one, two = two, one
    # The difference of two squared distances is linear in the place along the line.
    along = {i: _square(cores[i], cores[one]) - _square(cores[i], cores[two]) for i in part}
    line = sorted(part, key=lambda i: (along[i], i))
    margin = max(1, len(line) // MARGIN)
    border = max(
        range(margin, len(line) - margin + 1),
        key=lambda at: (along[line[at]] - along[line[at - 1]], -at),
    )
    first, rest = line[:border], line[border:]
    _split(first, cores, last, depth + 1, order)
    _split(rest, cores, cores[order[-1]], depth + 1, order)


def _square(a: Place, b: Place) -> int:
    return (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2


class GroupProposer:
    """Proposes groups of a snapshot's members by dividing their one order."""

    def __init__(self, snapshot: NetworkSnapshot) -> None:
        self._snapshot = snapshot
        self.order = near_order([member.at for member in snapshot.members])
        cores = [_core(snapshot.members[i].at) for i in self.order]
        # steps[i] is the squared distance between the i-th member in the order and the one before.
        self._steps = [0, *(_square(a, b) for a, b in pairwise(cores))]
        typical = sorted(self._steps[1:])[(len(self.order) - 1) // 2] if len(self.order) > 1 else 0
        self._wide = max(GAP * GAP * typical, SAME_PLACE_US2, max(self._steps) // (WIDEST * WIDEST))
        self._clusters = self._find_clusters()

    def propose(self, count: int, bounds: GroupBounds) -> tuple[Groups, ...]:
        """Propose `count` groups of even sizes.

        A second proposal has about as many groups and respects clusters, if their sizes allow it.
        """
        proposals = [self._divided(_even(0, len(self.order), count))]
        if len(self._clusters) > 1 and count > 1:
            size = len(self.order) / count
            borders: list[int] = []
            for start, stop in self._clusters:
                members = stop - start
                parts = max(int(members / size + 0.5), 1, -(-members // bounds.most))
                borders += [start, *_even(start, stop, parts)]
            aligned = self._divided([border for border in borders if border])
            if min(len(group) for group in aligned) >= bounds.least:
                proposals.append(aligned)
        return tuple(dict.fromkeys(proposals))

    def _find_clusters(self) -> list[tuple[int, int]]:
        """Return the runs of the order that have no wide gap inside.

        A single member beyond a gap belongs to the run before it: its coordinate may be wrong.
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

    def _divided(self, inner_borders: Sequence[int]) -> Groups:
        borders = [0, *inner_borders, len(self.order)]
        if len(borders) == 2:
            return (tuple(sorted(self.order)),)
        return tuple(self._by_strength(self.order[a:b]) for a, b in pairwise(borders))

    def _by_strength(self, group: Sequence[int]) -> tuple[int, ...]:
        """Order a group by its members' links, the strongest first.

        So the owners of one position are alike in all groups, and the weakest members of a long
        group own nothing.
        """

        def strength(i: int) -> tuple[int, int, int]:
            member = self._snapshot.members[i]
            return (
                -min(member.uplink_bps, member.downlink_bps),
                -member.uplink_bps - member.downlink_bps,
                i,
            )

        return tuple(sorted(group, key=strength))


def _even(start: int, stop: int, count: int) -> list[int]:
    """Return the inner borders that divide `[start, stop)` into `count` parts.

    Sizes differ by at most one, because all members wait for the largest group.
    """
    return [start + (stop - start) * i // count for i in range(1, count)]


def _core(at: Coordinate | None) -> Place:
    return (at.x_us, at.y_us, at.z_us) if at is not None else (0, 0, 0)
