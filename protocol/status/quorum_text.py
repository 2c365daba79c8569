"""When the last full certificate was, and whether a node waits for voters."""

from __future__ import annotations

from protocol.status.figures import count, duration
from protocol.status.peer_records import MembershipSummary
from protocol.status.run_records import QuorumSummary


def last_full_words(
    membership: MembershipSummary | None, quorum: QuorumSummary | None, now: float
) -> str:
    """Return the number of the last full certificate and when it was; "" where none is known."""
    number = max(
        membership.last_full or 0 if membership is not None else 0,
        quorum.last_full if quorum is not None else 0,
    )
    if not number:
        return "none seen yet" if membership is not None and membership.is_degraded else ""
    at = membership.last_full_at if membership is not None else None
    seen = membership is not None and membership.last_full == number
    ago = f", {duration(max(0.0, now - at))} ago" if seen and at is not None else ""
    return f"number {count(number)}{ago}"


def patience_words(quorum: QuorumSummary | None) -> tuple[str, str]:
    """Return whether a node is patient, in a few words, and why; empty where it is no member."""
    if quorum is None:
        return "", ""
    connected = f"{count(quorum.connected)} of {count(quorum.voters)} voters connected"
    needed = f"{connected}, a full certificate needs {count(quorum.needed)}"
    if quorum.connected >= quorum.needed:
        return "not needed", needed
    if quorum.patient:
        return "patient", f"{needed}; this node goes on with fewer voters"
    return "waits", quorum.reason or needed
