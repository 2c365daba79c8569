"""Turns tokens into pieces of text, as they are made."""

from __future__ import annotations

from protocol.ports.stage import Tokenizer

# What a tokenizer decodes the first bytes of an unfinished character to.
_UNFINISHED = "�"
# The longest character of UTF-8 has four bytes, and a token has at least one of them.
MAX_UNFINISHED_TOKENS = 4


class TextPieces:
    """The text of one answer, piece by piece. The pieces add up to the decoded answer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._given = 0
        self._held = 0

    def add(self, token: int) -> str:
        """Take the next token in. Returns the text that it completes, which may be empty."""
        self._tokens.append(token)
        text = self._tokenizer.decode(self._tokens)
        self._held += 1
        if text.endswith(_UNFINISHED) and self._held < MAX_UNFINISHED_TOKENS:
            return ""
        return self._give(text)

    def rest(self) -> str:
        """Return what was held back, at the end of the answer."""
        return self._give(self._tokenizer.decode(self._tokens))

    def _give(self, text: str) -> str:
        piece, self._given, self._held = text[self._given :], len(text), 0
        return piece
