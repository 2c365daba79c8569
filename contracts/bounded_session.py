"""An HTTP session with limits on answers: their size, their duration, and how deep they are nested.

`requests` reads a whole answer, however long it is, and its timeout starts again with every byte.
So an endpoint that never stops, or that sends a byte every nine seconds, would fill the memory or
block a thread for ever.
"""

from __future__ import annotations

import time
from typing import Any

import requests
from urllib3.exceptions import HTTPError

# Three times the longest real answer: the events of a thousand nodes in 256 blocks.
MAX_ANSWER_BYTES = 16 << 20
PIECE_BYTES = 64 << 10
# A full block has 5 levels. json's C code recurses, and overflows the stack where py-evm has raised
# Python's limit to 12,000.
MAX_NESTED = 64
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class AnswerTooLong(requests.RequestException):
    """An answer is too large, takes too long, or is nested too deep."""


class BoundedSession(requests.Session):
    """A `requests.Session` whose answers are bounded.

    `answer_s` is the time limit for the body of one answer. The session asks for no compression, so
    that it counts the bytes that arrive.
    """

    def __init__(self, answer_s: float, max_bytes: int = MAX_ANSWER_BYTES) -> None:
        super().__init__()
        self.headers["Accept-Encoding"] = "identity"
        self._answer_s, self._max_bytes = answer_s, max_bytes

    def send(self, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        """Send a request. Raises `AnswerTooLong`, and what `requests.Session` raises."""
        response = super().send(request, **more | {"stream": True})
        try:
            # The attribute behind `content`; requests has no other way to set it.
            response._content = self._read(response)
        except (HTTPError, OSError) as error:
            raise requests.ConnectionError(str(error)) from None
        finally:
            response.close()
        response._content_consumed = True  # type: ignore[attr-defined]
        return response

    def _read(self, response: requests.Response) -> bytes:
        read = bytearray()
        until = time.monotonic() + self._answer_s
        # `read1` returns what has arrived, without waiting for a whole piece.
        while piece := response.raw.read1(PIECE_BYTES, decode_content=False):
            read += piece
            if len(read) > self._max_bytes:
                raise AnswerTooLong(f"an answer of more than {self._max_bytes >> 20} MB")
            if time.monotonic() > until:
                raise AnswerTooLong(f"an answer that was not over after {self._answer_s:g} s")
        if nested_deeper(bytes(read), MAX_NESTED):
            raise AnswerTooLong(f"an answer nested deeper than {MAX_NESTED}")
        return bytes(read)


def nested_deeper(text: bytes, limit: int) -> bool:
    """Return whether brackets are nested more than `limit` deep.

    Brackets within strings count, too. Nodes' answers have few of them.
    """
    depth = 0
    for bracket in text.translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > limit:
            return True
    return False
