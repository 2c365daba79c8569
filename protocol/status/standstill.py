"""Whether the run stands still: no certificate came in several times the usual interval.

The deadline follows the run's own rhythm, so that it fits rounds of a second and of an hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from protocol.status.figures import duration
from protocol.status.peer_records import PeerSummary
from protocol.status.state import StatusState
from protocol.status.text_parts import LeveledText, because

HEARD_S = 30.0
"""A peer counts as training while its last beacon is not older. Beacons come every few seconds."""

LATE_ROUNDS, STILL_ROUNDS = 3.0, 10.0
"""Usual intervals without a certificate after which the verdict warns, and after which it is bad.

A failed view costs about one interval, so two failed views are no standstill.
"""

LATE_AT_LEAST_S, STILL_AT_LEAST_S = 5.0, 20.0
"""The least times for both. A leader's failed view takes seconds however short the rounds are."""

SHOWN_NAMES = 3
"""Members that the sentence names."""

SECONDS_SHOWN_S = 120.0
"""Above this, the sentence shows whole minutes, so that it does not change every second."""


def recently_heard(peers: list[PeerSummary], now: float) -> list[PeerSummary]:
    """Return the nodes whose last beacon is not older than `HEARD_S`."""
    return [peer for peer in peers if peer.role == "node" and now - peer.last_seen <= HEARD_S]


def usual_round_s(state: StatusState) -> float | None:
    """Return the usual seconds between two certificates; None before the second one.

    A plan that makes the next round longer moves the deadline at once.
    """
    if not state.intervals:
        return None
    return max(median(state.intervals), state.run.next_round_s or 0.0)


def standstill(state: StatusState, now: float) -> LeveledText | None:
    """Return the level and the sentence where no certificate came in time, else None.

    A run that its owner paused or stopped does not stand still by mistake.

    `now` is in unix seconds by the clock of the events.
    """
    last, usual = state.newest, usual_round_s(state)
    if last is None or usual is None or state.run.order:
        return None
    silent = now - last.at
    if silent <= max(LATE_ROUNDS * usual, LATE_AT_LEAST_S):
        return None
    level = "bad" if silent > max(STILL_ROUNDS * usual, STILL_AT_LEAST_S) else "warning"
    shown = silent // 60 * 60 if silent > SECONDS_SHOWN_S else silent // 1
    head = f"No round certified for {duration(shown)} (usually {duration(usual)})"
    members = last.members
    gone = [peer for peer in members if peer != state.you.peer and _is_gone(state, peer, now)]
    if gone:
        left = f"{len(members) - len(gone)} of {len(members)} members left"
        return level, f"{head}: {names_in_words(state, gone)} stopped answering, {left}"
    tried = next((one.reason for one in state.rounds if one.outcome == "missed"), "")
    newest = f"the last one was round {last.number}"
    return level, f"{head}; {newest}" + (f". Last try{because(tried)}" if tried else "")


def _is_gone(state: StatusState, peer: str, now: float) -> bool:
    """Whether a member of the last round is not heard any more."""
    known = state.peers.get(peer)
    if known is None:
        return True
    return not known.connected and (known.lost_at > 0 or now - known.last_seen > HEARD_S)


def names_in_words(state: StatusState, peers: Sequence[str]) -> str:
    """Name some peers, and count the others: "a, b and 3 more"."""
    named = [state.name_of(peer) for peer in peers[:SHOWN_NAMES]]
    more = len(peers) - len(named)
    if more:
        named.append(f"{more} more")
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
