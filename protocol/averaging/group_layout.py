"""The group layout: which member sums which contributions, read from the plan alone.

The vector is divided among the positions of a group. The member at position k of its group sums the
slice of that position over its own group's contributions. The members at position k of all groups
are **counterparts**. They divide that slice again, and each finishes one share of it: it adds up
the sums of all groups (inter-group reduce). So a member's **part** is what its group scatters to
it, and its **slice** is what it finishes. With one group both are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import msgspec

from protocol.averaging.vector_layout import share_out
from protocol.messages.round import Inclusion, Plan

# A node asks for the layouts of few plans, and often; a simulated world does so for every node.
LAYOUTS_KEPT = 64

Chunks = tuple[int, int]
"""From the first chunk to the one after the last."""

NO_CHUNKS: Chunks = (0, 0)

ShareOut = Callable[[int, Sequence[float]], tuple[int, ...]]
"""How the run's rules divide a slice among counterparts; see `vector_layout.share_out`."""


class GroupLayout(msgspec.Struct, frozen=True, kw_only=True):
    """What each member sums and finishes, by member index."""

    groups: tuple[tuple[int, ...], ...]
    group_of: tuple[int, ...]
    # The chunks that each member sums over its group.
    parts: tuple[Chunks, ...]
    # The chunks that each member finishes over all groups.
    slices: tuple[Chunks, ...]
    # The members at the same position, in the order of the groups, the member itself among them;
    # empty for a member without a position to sum.
    counterparts: tuple[tuple[int, ...], ...]

    def sums(self, member: int) -> bool:
        """Whether the member has anything to sum."""
        start, stop = self.parts[member]
        return stop > start

    def finishes(self, member: int) -> bool:
        """Whether the member has anything to finish; a slice of few chunks may leave it nothing."""
        start, stop = self.slices[member]
        return stop > start

    def groups_with(self, members: Iterable[int]) -> tuple[int, ...]:
        """The groups of these members, ascending."""
        return tuple(sorted({self.group_of[i] for i in members}))

    def group_members(self, member: int) -> tuple[int, ...]:
        """The members of this member's group, in the order of their positions."""
        return self.groups[self.group_of[member]]


def layout(plan: Plan, divide: ShareOut = share_out) -> GroupLayout:
    """The layout of a checked plan."""
    return layout_of(plan.groups, plan.borders, divide)


@lru_cache(LAYOUTS_KEPT)
def layout_of(
    groups: tuple[tuple[int, ...], ...], borders: tuple[int, ...], divide: ShareOut = share_out
) -> GroupLayout:
    """The layout of these groups.

    Args:
        groups: every index below the number of members, once.
        borders: one more than the smallest group has members.
        divide: divides a slice among counterparts.
    """
    count = sum(len(group) for group in groups)
    group_of, parts, slices = [0] * count, [NO_CHUNKS] * count, [NO_CHUNKS] * count
    counterparts: list[tuple[int, ...]] = [()] * count
    for g, group in enumerate(groups):
        for member in group:
            group_of[member] = g
    for position in range(len(borders) - 1):
        owners = tuple(group[position] for group in groups)
        start, stop = borders[position], borders[position + 1]
        shares = divide(stop - start, [1.0] * len(groups))
        for g, member in enumerate(owners):
            parts[member] = (start, stop)
            slices[member] = (start + shares[g], start + shares[g + 1])
            counterparts[member] = owners
    return GroupLayout(
        groups=groups,
        group_of=tuple(group_of),
        parts=tuple(parts),
        slices=tuple(slices),
        counterparts=tuple(counterparts),
    )


def even_groups(count: int, most: int) -> tuple[tuple[int, ...], ...]:
    """Divide `count` members into as few groups of at most `most` as possible.

    The sizes differ by one at most. The members keep their order.
    """
    number = -(-count // most)
    borders = share_out(count, [1.0] * number)
    return tuple(tuple(range(borders[g], borders[g + 1])) for g in range(number))


def receivers(
    layout: GroupLayout, inclusion: Inclusion, index: int, holder: int, lost: Iterable[int] = ()
) -> tuple[int, ...]:
    """The members that `holder` sends the result of slice `index` to.

    The finisher of a slice sends its result to its own group and to its counterparts. Each
    counterpart sends it to its own group. Where a counterpart is `lost`, the finisher sends to that
    group itself. The order begins behind the holder, so that not all senders begin with the same
    receiver.
    """
    finisher = inclusion.owners[index] == holder
    gone = frozenset(lost)
    to: set[int] = set()
    for member in layout.counterparts[index]:
        owner = inclusion.owners[member]
        if owner == holder or (finisher and owner in gone):
            group = layout.group_of[member]
            to.update(i for i in inclusion.present if layout.group_of[i] == group)
        if finisher:
            to.add(owner)
    to -= {holder, *gone}
    return tuple(sorted(to, key=lambda i: (i <= holder, i)))
