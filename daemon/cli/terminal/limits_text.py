"""The limits of the volunteer as lines of text."""

from __future__ import annotations

from protocol.status import Status


def limit_lines(status: Status) -> list[str]:
    """Return what pauses training, what training may use, and what cannot be kept."""
    limits = status.you.limits
    pauses = [f"paused until {pause.until}: {pause.reason}" for pause in limits.pauses]
    caps = [", ".join(limits.caps)] if limits.caps else []
    return [*pauses, *caps, *limits.blind]
