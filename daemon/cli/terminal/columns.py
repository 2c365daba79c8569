"""Text in terminal columns: the width of letters, wrapped lines, and cells that are cut.

All functions are pure, except `output_width`, which asks for the terminal's width.
"""

from __future__ import annotations

import os
import shutil
import unicodedata

MISSING = "…"
# Columns. On a narrower terminal a wrapped line has no room beside its label.
NARROWEST = 40
_ZERO = ("Mn", "Me", "Cf")
_WIDE = ("W", "F")


def columns(text: str) -> int:
    """How many terminal columns `text` takes (UAX 11).

    East Asian wide letters take two columns, combining marks none.
    """
    if text.isascii():
        return len(text)
    return sum(_width(letter) for letter in text)


def _width(letter: str) -> int:
    if unicodedata.category(letter) in _ZERO:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in _WIDE else 1


def cut(text: str, width: int) -> str:
    """`text` in at most `width` columns; an ellipsis replaces what does not fit."""
    if columns(text) <= width:
        return text
    return _fitting(text, max(width - 1, 0)) + MISSING


def wrapped(text: str, width: int, indent: int) -> str:
    """`text` in lines of at most `width` columns, broken at spaces and between wide letters.

    Each line but the first begins with `indent` spaces. A longer word without wide letters (an
    address, a path) stays whole, so that a user can copy it.
    """
    room = max(width - indent, 1)
    lines: list[str] = []
    line = ""
    for word in text.split():
        rest = word
        if line and columns(line) + 1 + columns(rest) <= room:
            line += f" {rest}"
            continue
        if line:
            lines.append(line)
        while columns(rest) > room and columns(rest) > len(rest):
            head = _fitting(rest, room) or rest[0]
            lines.append(head)
            rest = rest[len(head) :]
        line = rest
    if line:
        lines.append(line)
    return ("\n" + " " * indent).join(lines)


def fitted(widths: list[int], room: int, gap: int, least: int) -> list[int]:
    """Return the widths of a table's columns, narrowed until a line takes `room` columns.

    The widest column is narrowed first, down to `least`.
    """
    narrowed = list(widths)
    while sum(narrowed) + gap * (len(narrowed) - 1) > room and max(narrowed, default=0) > least:
        narrowed[narrowed.index(max(narrowed))] -= 1
    return narrowed


def output_width(*, terminal: bool) -> int | None:
    """Return the width that lines should keep: `COLUMNS`, else the terminal's width.

    None for output that is not a terminal, unless `COLUMNS` is set.
    """
    wanted = os.environ.get("COLUMNS", "")
    if not terminal and not (wanted.isascii() and wanted.isdigit() and int(wanted)):
        return None
    return max(shutil.get_terminal_size().columns, NARROWEST)


def _fitting(text: str, room: int) -> str:
    """Return the longest beginning of `text` that takes at most `room` columns."""
    used = 0
    for at, letter in enumerate(text):
        used += _width(letter)
        if used > room:
            return text[:at]
    return text
