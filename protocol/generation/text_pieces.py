"""Turns tokens into text while they are made, and ends the text at a stop sequence.

A character may need several tokens, and a stop sequence may begin in one piece and end in another.
A part of the text is returned once no later token can change it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

# A character of UTF-8 has up to 4 bytes, so at most 3 bytes at the end wait for the rest. Decoders
# replace each of them, or all of them, by one sign.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
MOST_WAITING = 3
# The tokens that are decoded again with the next one. A decoder looks back at a few: it drops the
# space before the first word.
WINDOW_TOKENS = 16


class TextPieces:
    """The text of one answer.

    Guaranteed: the pieces and the rest together are the text of all tokens, up to the first stop
    sequence, which is left out.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        """`decode` returns the text of token ids. The stop sequences are not empty."""
        self._decode, self._stops = decode, tuple(stops)
        self._tokens: list[int] = []
        # The window begins at `_start`. The one after it begins at `_next`.
        self._start = self._next = 0
        # The characters of the window's text that were taken.
        self._taken = 0
        # Text that may be the beginning of a stop sequence.
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """Add a token, and return the next piece of the text. It is often empty."""
        if self.stopped:
            return ""
        self._tokens.append(token)
        text = self._decode(self._tokens[self._start :])
        certain = _certain(text)
        piece = text[self._taken : certain]
        self._taken = max(self._taken, certain)
        if certain == len(text) and len(self._tokens) - self._next >= WINDOW_TOKENS:
            self._start, self._next = self._next, len(self._tokens)
            self._taken = len(self._decode(self._tokens[self._start :]))
        return self._up_to_stop(piece, is_last=False)

    def rest(self) -> str:
        """Return the rest of the text, after the last token."""
        if self.stopped:
            return ""
        text = self._decode(self._tokens[self._start :])
        piece, self._taken = text[self._taken :], len(text)
        return self._up_to_stop(piece, is_last=True)

    def _up_to_stop(self, piece: str, *, is_last: bool) -> str:
        text = self._held + piece
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        waiting = 0 if is_last else max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - waiting :]
        return text[: len(text) - waiting]


def _certain(text: str) -> int:
    """Return how many characters of a text no later token changes."""
    size = len(text)
    while size > len(text) - MOST_WAITING and text[:size].endswith(REPLACEMENT):
        size -= 1
    return size


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of the text with which the stop sequence begins."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)
