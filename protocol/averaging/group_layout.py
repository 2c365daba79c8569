"""Rows: who sums what of whose work when a plan has several, read out of the plan alone.

A member at position k of its row has rank k. It sums the slice of its rank over its own row's
contributions; then the slice is divided among the members of that rank, one in each row, and each
finishes one share of it from the sums of all rows. So a member's **part** is what its row scatters
to it, and its **slice** what it finishes. With one row both are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import msgspec

from protocol.averaging.vector_layout import share_out
from protocol.messages import Inclusion, Plan

# Plans are looked at often, and few at a time; in a simulated world by every node.
LAYOUTS_KEPT = 64

Chunks = tuple[int, int]
"""From the first chunk to the one after the last."""

NOTHING: Chunks = (0, 0)


class GroupLayout(msgspec.Struct, frozen=True, kw_only=True):
    """All of it by member index."""

    rows: tuple[tuple[int, ...], ...]
    row_of: tuple[int, ...]
    parts: tuple[Chunks, ...]  # what a member sums over its row
    slices: tuple[Chunks, ...]  # what it finishes over all rows
    # The members of its rank, in the order of the rows, itself among them; empty for one without a
    # rank.
    ranks: tuple[tuple[int, ...], ...]

    def sums(self, member: int) -> bool:
        """Whether it has anything to sum."""
        start, stop = self.parts[member]
        return stop > start

    def finishes(self, member: int) -> bool:
        """Whether it has anything to finish: of a slice of few chunks perhaps not."""
        start, stop = self.slices[member]
        return stop > start

    def rows_with(self, members: Iterable[int]) -> tuple[int, ...]:
        """The rows that any of them stands in, ascending."""
        return tuple(sorted({self.row_of[i] for i in members}))

    def mates(self, member: int) -> tuple[int, ...]:
        """Its row, in the order of ranks."""
        return self.rows[self.row_of[member]]


ShareOut = Callable[[int, Sequence[float]], tuple[int, ...]]
"""As `protocol.averaging.vector_layout.share_out`: how the run's rules divide a slice among the members of one rank."""


def layout(plan: Plan, divide: ShareOut = share_out) -> GroupLayout:
    """The layout of a checked plan."""
    return layout_of(plan.rows, plan.borders, divide)


@lru_cache(LAYOUTS_KEPT)
def layout_of(
    rows: tuple[tuple[int, ...], ...], borders: tuple[int, ...], divide: ShareOut = share_out
) -> GroupLayout:
    """`rows` have every index below their number of members once; `borders` are one more than the
    smallest row has members.
    """
    count = sum(len(row) for row in rows)
    row_of, parts, slices = [0] * count, [NOTHING] * count, [NOTHING] * count
    ranks: list[tuple[int, ...]] = [()] * count
    for r, row in enumerate(rows):
        for member in row:
            row_of[member] = r
    for k in range(len(borders) - 1):
        owners = tuple(row[k] for row in rows)
        start, stop = borders[k], borders[k + 1]
        shares = divide(stop - start, [1.0] * len(rows))
        for r, member in enumerate(owners):
            parts[member] = (start, stop)
            slices[member] = (start + shares[r], start + shares[r + 1])
            ranks[member] = owners
    return GroupLayout(
        rows=rows,
        row_of=tuple(row_of),
        parts=tuple(parts),
        slices=tuple(slices),
        ranks=tuple(ranks),
    )


def even_rows(count: int, most: int) -> tuple[tuple[int, ...], ...]:
    """As few rows of at most `most` as `count` members need, whose sizes differ by one at most, in
    the members' own order.
    """
    number = -(-count // most)
    borders = share_out(count, [1.0] * number)
    return tuple(tuple(range(borders[r], borders[r + 1])) for r in range(number))


def receivers(
    plan: GroupLayout, cut: Inclusion, index: int, holder: int, gone: Iterable[int] = ()
) -> tuple[int, ...]:
    """Who gets the result of slice `index` from one that holds it.

    Whoever finishes it gives it to its row and to those of its rank in the others, each of these to
    its own row; and where one of these is `gone`, to that row itself. Beginning behind the holder,
    so that not everybody sends to the first one first.
    """
    finisher = cut.owners[index] == holder
    lost = frozenset(gone)
    to: set[int] = set()
    for member in plan.ranks[index]:
        owner = cut.owners[member]
        if owner == holder or (finisher and owner in lost):
            to.update(i for i in cut.present if plan.row_of[i] == plan.row_of[member])
        if finisher:
            to.add(owner)
    to -= {holder, *lost}
    return tuple(sorted(to, key=lambda i: (i <= holder, i)))
