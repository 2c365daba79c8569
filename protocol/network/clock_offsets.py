"""Whose clock is wrong: this machine's, or a peer's. Pure.

No rule of a round reads a wall clock. Invitations, dates and chains do, so a person should know of
a wrong one. Each node asks its peers for their time (RFC 5905, section 8, with one exchange).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from protocol.identity import PeerId
from protocol.status.figures import duration, quantity

# Clocks that nobody keeps drift by seconds a day. Invitations allow for ten minutes.
MOST_OFFSET_S = 60.0


class ClockReading(msgspec.Struct, frozen=True, kw_only=True):
    """A peer's clock as this node measured it: it is `offset_s` ahead of ours, within `error_s`."""

    offset_s: float
    error_s: float

    @property
    def differs(self) -> bool:
        """Whether it certainly differs by more than `MOST_OFFSET_S`."""
        return abs(self.offset_s) - self.error_s > MOST_OFFSET_S


class ClockFinding(msgspec.Struct, frozen=True, kw_only=True):
    """What the readings say together.

    `own_offset_s` is how far this machine's clock is ahead of most others, None where it agrees
    with most of them. `wrong` has the peers whose clocks are wrong, with the same figure. `unclear`
    says that half of the clocks are against the other half.
    """

    compared: int
    own_offset_s: float | None = None
    wrong: Mapping[PeerId, float] = {}
    unclear: bool = False


def reading_of(asked_s: float, answered_s: float, round_trip_s: float) -> ClockReading:
    """Return the reading of one exchange.

    Args:
        asked_s: This machine's clock when it asked, in unix seconds.
        answered_s: The peer's clock in its answer.
        round_trip_s: The time between question and answer, by a clock that does not jump.
    """
    half = round_trip_s / 2
    return ClockReading(offset_s=answered_s - asked_s - half, error_s=half)


def judge_clocks(readings: Mapping[PeerId, ClockReading]) -> ClockFinding:
    """Return whose clocks are wrong: those that differ from the largest set of equal clocks."""
    if not any(one.differs for one in readings.values()):
        return ClockFinding(compared=len(readings))
    clocks = [0.0, *(one.offset_s for one in readings.values())]
    votes = {clock: sum(abs(clock - one) <= MOST_OFFSET_S for one in clocks) for clock in clocks}
    most = max(votes.values())
    right = [clock for clock, count in votes.items() if count == most]
    unclear = 2 * most <= len(clocks)
    # This machine's clock wins a tie, so that a lone stranger convinces nobody.
    reference = 0.0 if votes[0.0] == most else sorted(right)[len(right) // 2]
    wrong = {
        peer: one.offset_s - reference
        for peer, one in readings.items()
        if abs(one.offset_s - reference) - one.error_s > MOST_OFFSET_S
    }
    own = -reference if abs(reference) > MOST_OFFSET_S else None
    return ClockFinding(compared=len(readings), own_offset_s=own, wrong=wrong, unclear=unclear)


def offset_text(offset_s: float) -> str:
    """Return "5 d 3 h ahead", or "behind"."""
    return f"{duration(abs(offset_s))} {'ahead' if offset_s > 0 else 'behind'}"


def own_clock_text(finding: ClockFinding) -> str:
    """Return what to say about this machine's clock; empty where it is right."""
    if finding.own_offset_s is None:
        return ""
    agreeing = finding.compared - len(finding.wrong)
    of = f"{agreeing} of {quantity(finding.compared, 'peer')}"
    return (
        f"This machine's clock is {offset_text(finding.own_offset_s)} by those of {of}. Let the"
        " system keep the time: timedatectl set-ntp true"
    )


def peer_clock_text(name: str, offset_s: float, *, unclear: bool) -> str:
    """Return what to say about a peer's clock."""
    if unclear:
        return (
            f"The clock of {name} is {offset_text(offset_s)} of this machine's, and one of both is"
            " wrong. Compare both with a watch"
        )
    return f"The clock of {name} is {offset_text(offset_s)}. Rounds do not need it; tell its person"
