"""Text from outside, made fit for a terminal or a log. Pure, standard library only.

A terminal executes what it receives: escape codes move the cursor, rename the window, or overwrite
what a person has just read. Bidirectional overrides make text read as something else. So text that
a peer may have chosen passes through this module before a person sees it.
"""

from __future__ import annotations

MOST_CHARS = 8000
"""The most characters of one text: twenty mistakes of a config file, each with its reason."""

_KEPT = "\n\t"


def printable(text: str, limit: int = MOST_CHARS) -> str:
    """Return `text` with every unprintable character replaced, except line ends and tabs.

    The result has at most `limit` characters.
    """
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    if all(line.isprintable() for line in shown.split("\n")):
        return shown
    return "".join(
        letter if letter.isprintable() or letter in _KEPT else "\ufffd" for letter in shown
    )
