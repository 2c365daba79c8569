"""Reads an answer from the API as it is made, over HTTP with the standard library."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from protocol.errors import UserError

# An answer may wait for a stage; the API gives up before.
TIMEOUT_S = 120.0
_DATA, _DONE = b"data: ", b"[DONE]"


class DemoAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, and how it was made.

    `longest_gap_s` is the longest time between two pieces of the text, and `seconds` the time from
    the request to the end.
    """

    text: str
    tokens: int
    exact: bool
    replays: int
    longest_gap_s: float
    seconds: float


class TextClient:
    """Asks one API for answers."""

    def __init__(self, url: str, key: str) -> None:
        """`url` is the base URL, and `key` the bearer token."""
        self._parts, self._key = urlsplit(url), key

    def models(self) -> list[str]:
        """Return the names of the served models. Raises `OSError` where nothing answers."""
        reply = self._request("GET", "/models", None)
        found = msgspec.json.decode(reply.read(), type=dict[str, Any])
        return [model["id"] for model in found["data"]]

    def answer(self, request: dict[str, object], seen: Callable[[int], None]) -> DemoAnswer:
        """Make an answer. `seen` is called after each piece of text, with their number so far.

        Raises:
            UserError: "API" where the API reports an error.
        """
        began = last = time.monotonic()
        text, pieces, gap_s = "", 0, 0.0
        end: dict[str, Any] = {}
        usage: dict[str, Any] = {}
        body = {**request, "stream": True, "stream_options": {"include_usage": True}}
        reply = self._request("POST", "/completions", msgspec.json.encode(body))
        while line := reply.readline():
            if not line.startswith(_DATA) or line[len(_DATA) :].strip() == _DONE:
                continue
            event = msgspec.json.decode(line[len(_DATA) :], type=dict[str, Any])
            if "error" in event:
                raise _failure(event)
            end, usage = event.get("hypergpu", end), event.get("usage", usage)
            for choice in event["choices"]:
                if not choice["text"]:
                    continue
                text, pieces = text + choice["text"], pieces + 1
                now = time.monotonic()
                gap_s, last = max(gap_s, now - last if pieces > 1 else 0.0), now
                seen(pieces)
        if not usage:
            raise _failure({"error": {"message": "The API ended the stream early."}})
        return DemoAnswer(
            text=text,
            tokens=usage["completion_tokens"],
            exact=end["exact"],
            replays=end["replays"],
            longest_gap_s=gap_s,
            seconds=time.monotonic() - began,
        )

    def _request(self, method: str, path: str, body: bytes | None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(
            self._parts.hostname or "", self._parts.port, timeout=TIMEOUT_S
        )
        headers = {"Authorization": f"Bearer {self._key}"}
        connection.request(method, f"{self._parts.path}{path}", body, headers)
        reply = connection.getresponse()
        if reply.status != http.HTTPStatus.OK:
            raise _failure(msgspec.json.decode(reply.read(), type=dict[str, Any]))
        return reply


def _failure(body: dict[str, Any]) -> UserError:
    return UserError("API", "The API did not answer.", why=str(body["error"]["message"]))
