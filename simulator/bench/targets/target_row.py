"""A target, the value that was measured for it, and the table. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

HEAD = ("target", "measured", "wanted", "", "how it was measured")


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a benchmark must reach: a value below or above `limit`, in `unit`."""

    name: str
    wanted: Literal["below", "above"]
    limit: float
    unit: str

    def reached_by(self, value: float) -> bool:
        """Whether `value` is on the right side of the limit. The limit itself is not."""
        return value < self.limit if self.wanted == "below" else value > self.limit


class TargetRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table.

    `value` is None where nothing could be measured; `how` then says why, and the target is missed.
    """

    target: Target
    value: float | None
    passed: bool
    how: str


def measured(target: Target, value: float, how: str) -> TargetRow:
    """The row of a value."""
    return TargetRow(target=target, value=value, passed=target.reached_by(value), how=how)


def unmeasured(target: Target, why: str) -> TargetRow:
    """The row of a measurement that failed."""
    return TargetRow(target=target, value=None, passed=False, how=f"not measured: {why}")


def table(rows: Sequence[TargetRow]) -> str:
    """The rows as a table for a terminal."""
    lines = [HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cells(row: TargetRow) -> tuple[str, ...]:
    target = row.target
    return (
        target.name,
        "-" if row.value is None else _quantity(row.value, target.unit),
        f"{target.wanted} {_quantity(target.limit, target.unit)}",
        "pass" if row.passed else "FAIL",
        row.how,
    )


def _quantity(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {unit}"
