"""What the sentences of events and verdicts share."""

from __future__ import annotations

from collections.abc import Callable

from protocol.identity import PeerId

NameOf = Callable[[PeerId], str]
LeveledText = tuple[str, str]
"""A level ("info", "good", "warning" or "bad") and a sentence."""


def because(reason: str) -> str:
    """Return `: reason.` as the end of a sentence, or just the full stop."""
    reason = reason.strip().rstrip(".")
    return f": {reason}." if reason else "."
