"""What a node counted since its start: times of phases, clipped work, audits.

Only counts that metrics need, and that no other part of the status has.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the histogram's buckets: from a round in one room to an hour's tenth."""

WHOLE = "round"
"""Stands beside the phases for the whole time between two certificates."""

TIMED = ("train", "ready", "scatter", "reduce", "vote", WHOLE)


class PhaseTimes(msgspec.Struct, frozen=True, kw_only=True):
    """How often one phase took how long.

    `counts` has one number for each bound of `BOUNDS_S`, and one for longer times.
    """

    counts: tuple[int, ...] = (0,) * (len(BOUNDS_S) + 1)
    sum_s: float = 0.0

    def with_time(self, seconds: float) -> PhaseTimes:
        """Return the counts with one more time."""
        place = sum(seconds > bound for bound in BOUNDS_S)
        counts = tuple(count + (i == place) for i, count in enumerate(self.counts))
        return PhaseTimes(counts=counts, sum_s=self.sum_s + seconds)


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the start.

    `clipped` contributions weighed less than their samples, or lost a part of their work to the
    clip. `audits` are this voter's own, by what they found. `phases` has a record for each of
    `TIMED`.
    """

    clipped: int = 0
    degraded: int = 0
    audits_for: int = 0
    audits_against: int = 0
    audits_open: int = 0
    phases: Mapping[str, PhaseTimes] = msgspec.field(
        default_factory=lambda: dict.fromkeys(TIMED, PhaseTimes())
    )


def with_times(totals: Totals, seconds: Mapping[str, float]) -> Totals:
    """Return the totals with the times of one round; unknown phases are left out."""
    phases = dict(totals.phases)
    for phase, took in seconds.items():
        if phase in phases:
            phases[phase] = phases[phase].with_time(took)
    return replace(totals, phases=phases)


def with_audit(totals: Totals, favours: bool | None) -> Totals:
    """Return the totals with one more audit; None has no verdict yet."""
    if favours is None:
        return replace(totals, audits_open=totals.audits_open + 1)
    if favours:
        return replace(totals, audits_for=totals.audits_for + 1)
    return replace(totals, audits_against=totals.audits_against + 1)
