"""An HTTP session whose answers have a limit: in bytes, in time from the first to the last of them,
and in how deep they are nested.

`requests` reads an answer whole, however long, and its timeout starts again with every byte: an
endpoint that never stops, or sends a byte every nine seconds, would take all memory or a thread for
ever.
"""

from __future__ import annotations

import time
from typing import Any

import requests
from urllib3.exceptions import HTTPError

# Three times the longest there is: the events of a thousand nodes in 256 blocks.
MOST_ANSWER_BYTES = 16 << 20
PIECE_BYTES = 64 << 10
# A full block has 5; json's C code recurses, and where py-evm has raised Python's limit to 12,000
# it overflows the stack.
MOST_NESTED = 64
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class AnswerTooLong(requests.RequestException):
    """More bytes, more seconds or more brackets than an answer has."""


class BoundedSession(requests.Session):
    """`answer_s`: for one answer, its headers not counted.

    Asks for no compression: bytes are counted as they come.
    """

    def __init__(self, answer_s: float, most_bytes: int = MOST_ANSWER_BYTES) -> None:
        super().__init__()
        self.headers["Accept-Encoding"] = "identity"
        self._answer_s, self._most_bytes = answer_s, most_bytes

    def send(self, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        """Raises `AnswerTooLong`, and as `requests.Session`."""
        response = super().send(request, **more | {"stream": True})
        try:
            # What `content` gives; requests has no other way to set it.
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
        # What has come, not a whole piece.
        while piece := response.raw.read1(PIECE_BYTES, decode_content=False):
            read += piece
            if len(read) > self._most_bytes:
                raise AnswerTooLong(f"an answer of more than {self._most_bytes >> 20} MB")
            if time.monotonic() > until:
                raise AnswerTooLong(f"an answer that was not over after {self._answer_s:g} s")
        if nested_deeper(bytes(read), MOST_NESTED):
            raise AnswerTooLong(f"an answer nested deeper than {MOST_NESTED}")
        return bytes(read)


def nested_deeper(text: bytes, most: int) -> bool:
    """Whether brackets are open more than `most` deep; those within strings count too, which is
    safe: they are few in what a node says.
    """
    depth = 0
    for bracket in text.translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > most:
            return True
    return False
