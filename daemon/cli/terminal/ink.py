"""Colours of a terminal, and ages of events."""

from __future__ import annotations

_CODES = {"good": "32", "info": "36", "warning": "33", "bad": "31", "dim": "2", "bold": "1"}


class Ink:
    """Wraps text in colour codes, or returns it unchanged.

    Call it with a style ("good", "bad", "dim", ...) and a text.
    """

    def __init__(self, color: bool) -> None:
        self._color = color

    def __call__(self, style: str, text: str) -> str:
        code = _CODES.get(style)
        return f"\x1b[{code}m{text}\x1b[0m" if self._color and code and text else text


def ago(at: float, now: float) -> str:
    """An age such as "12 s ago"; "now" for less than a second, and for a time in the future."""
    seconds = int(now - at)
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= unit_s:
            return f"{seconds // unit_s} {unit} ago"
    return "now"
