"""Text from outside, made fit for a terminal or a log. Pure, standard library only.

A terminal obeys what it is sent: escape codes move the cursor, rename the window, or write over
what a person has just read; bidirectional overrides make text read as something else. So text that
a peer may have chosen passes through here before anybody sees it.
"""

from __future__ import annotations

# Of one text: twenty mistakes of a config file, each with its reason.
MOST_CHARS = 8000
_KEPT = "\n\t"


def printable(text: str, limit: int = MOST_CHARS) -> str:
    """`text` with everything that does not print replaced, line ends and tabs aside; at most
    `limit` characters.
    """
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    if all(line.isprintable() for line in cut.split("\n")):
        return cut
    return "".join(
        letter if letter.isprintable() or letter in _KEPT else "\ufffd" for letter in cut
    )
