"""Timings from members' lines: when they adopted, how long they exchanged, when they noticed."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.identity import PeerId, short
from simulator.harness.wire import AnyLine, Certified, Entered, LinkLost, Passed


def certified(
    lines: Sequence[AnyLine], since: float, *, with_passed: bool = False
) -> list[Certified]:
    """Certificates adopted after `since`.

    With `with_passed`, those passed on the way to a later one count too.
    """
    return [
        line
        for line in lines
        if isinstance(line, Certified) and line.at_s > since and (with_passed or line.state)
    ]


def exchanging_s(lines: Sequence[AnyLine], start: float, end: float) -> float:
    """The time from `start` to `end`, without training."""
    entered = [line for line in lines if isinstance(line, Entered)]
    trained = 0.0
    for i, line in enumerate(entered):
        if line.phase == "train":
            over = entered[i + 1].at_s if i + 1 < len(entered) else end
            trained += max(0.0, min(over, end) - max(line.at_s, start))
    return end - start - trained


def exchange_s(lines: Sequence[AnyLine], number: int) -> float | None:
    began = next(
        (
            line.at_s
            for line in lines
            if isinstance(line, Entered) and (line.number, line.phase) == (number, "offer")
        ),
        None,
    )
    ended = next(
        (
            line.at_s
            for line in lines
            if isinstance(line, Certified) and line.number == number and line.state
        ),
        None,
    )
    return ended - began if began is not None and ended is not None else None


def noticed_s(lines: Sequence[AnyLine], since: float, victim: PeerId) -> float | None:
    """When this member first acted on the victim's absence.

    That is a broken connection, an inclusion that names who was lost, or a view that was given up.
    """
    for line in lines:
        if line.at_s <= since:
            continue
        lost = isinstance(line, LinkLost) and line.peer == victim
        cut = isinstance(line, Entered) and line.phase == "reduce" and short(victim) in line.reason
        if lost or cut or isinstance(line, Passed):
            return line.at_s - since
    return None
