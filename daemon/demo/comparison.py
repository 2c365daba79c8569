"""Compares a swarm with one machine that trains alone at the pace of a member. Pure.

All processes of a demo share one machine, so wall time alone would compare nothing: a lone worker
that has the machine for itself is faster than each of four. The comparison gives the lone machine
the members' own pace: the samples that a member computes in a second of computing. The loss of the
lone machine is measured, by a worker with the same settings, task, samples and held-out data. Only
the time of each measurement follows from the pace. The lone machine loses no time to an exchange.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec

from protocol.status import HeldOutPoint, Status
from protocol.status.figures import duration, loss
from protocol.status.reference import MAX_REFERENCE_POINTS, ReferenceCurve, ReferencePoint

LABEL = "held-out, one machine alone at this pace"


class LonePoint(msgspec.Struct, frozen=True, kw_only=True):
    """The held-out loss of the lone machine after `samples` samples."""

    samples: int
    loss: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The held-out loss of the swarm and of one machine alone, `seconds` after the beginning.

    `reached_s` is when the swarm had the loss that the lone machine has at `seconds`; None where
    the swarm was never that good. `pace` is in samples a second.
    """

    seconds: float
    swarm: float
    alone: float
    reached_s: float | None
    pace: float

    @property
    def speedup(self) -> float | None:
        """How many times as fast the swarm reached that loss."""
        return self.seconds / self.reached_s if self.reached_s else None


def pace_of(statuses: Iterable[Status | None]) -> float:
    """Return the samples that one member computes in a second of computing; 0 before any."""
    nodes = [status.you for status in statuses if status is not None and status.you.trained_s > 0]
    samples, seconds = sum(you.samples_total for you in nodes), sum(you.trained_s for you in nodes)
    return samples / seconds if seconds > 0 else 0.0


def reference_curve(points: Sequence[LonePoint], pace: float, began_at: float) -> ReferenceCurve:
    """Return the losses of a lone machine that computes `pace` samples a second."""
    every = -(-len(points) // MAX_REFERENCE_POINTS) or 1
    return ReferenceCurve(
        label=LABEL,
        began_at=began_at,
        points=tuple(
            ReferencePoint(seconds=point.samples / pace, samples=point.samples, loss=point.loss)
            for point in points[::every]
        )
        if pace > 0
        else (),
    )


def compare(
    held_out: Sequence[HeldOutPoint], alone: ReferenceCurve, pace: float
) -> Comparison | None:
    """Compare at the newest certificate that both can be compared at; None without any."""
    swarm = [(point.at - alone.began_at, point.loss) for point in held_out]
    for seconds, value in reversed(swarm):
        lone = alone.loss_at(seconds)
        if lone is not None:
            # Both begin with the same parameters, so they have the same first loss.
            course = [(0.0, alone.points[0].loss), *swarm]
            return Comparison(
                seconds=seconds,
                swarm=value,
                alone=lone,
                reached_s=_reached(course, lone),
                pace=pace,
            )
    return None


def _reached(course: Sequence[tuple[float, float]], wanted: float) -> float | None:
    """Return when a course of (seconds, loss) first had a loss, linear between two points."""
    for (before_s, before), (after_s, after) in pairwise(course):
        if after <= wanted:
            part = (before - wanted) / (before - after) if before > wanted else 0.0
            return before_s + part * (after_s - before_s)
    return None


def comparison_text(comparison: Comparison) -> str:
    """Return the comparison as a sentence."""
    after = duration(comparison.seconds)
    text = (
        f"Held-out loss {loss(comparison.swarm)} after {after}; one machine alone at this pace:"
        f" {loss(comparison.alone)}"
    )
    if comparison.reached_s is None or comparison.speedup is None:
        return f"{text}."
    had = duration(comparison.reached_s)
    return f"{text}, which the swarm had after {had} ({comparison.speedup:.1f} times as fast)."
