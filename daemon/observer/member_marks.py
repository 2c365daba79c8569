"""Marks of members that came and went, the same in every chart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from protocol.status.figures import tail
from protocol.status.group_records import MemberMove

SHOWN_NAMES = 4
"""Members that the sentence of a mark names."""


def marks(moves: Sequence[MemberMove], x: Callable[[float], float | None], height: int) -> str:
    """Return a vertical line for each move: dashed where members joined, dotted where some left.

    `x` returns the column of a time; None where the chart does not show it.
    """
    found = []
    for move in moves:
        place = x(move.at)
        if place is None:
            continue
        found += [
            f'<path class="{kind}" d="M{place:.1f} 0v{height}"/>'
            for kind, peers in (("join", move.joined), ("leave", move.left))
            if peers
        ]
    return "".join(found)


def moved_words(moves: Sequence[MemberMove], names: Mapping[str, str]) -> str:
    """Say who joined and who left in some moves; empty without any."""
    parts = []
    for word, peers in (
        ("joined", [peer for move in moves for peer in move.joined]),
        ("left", [peer for move in moves for peer in move.left]),
    ):
        if peers:
            named = [names.get(peer) or tail(peer) for peer in peers[:SHOWN_NAMES]]
            more = len(peers) - SHOWN_NAMES
            parts.append(f"{word}: {', '.join(named)}{f' and {more} more' if more > 0 else ''}")
    return "; ".join(parts)
