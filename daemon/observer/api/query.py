"""The parameters of a request, and pages of a list.

A list answers with at most `limit` items and a `next` cursor. The cursor of the next page is opaque
to clients; it names the last item of this page, so that new items shift nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import parse_qsl, quote

from daemon.observer.request_guard import Refusal
from protocol.text.nearest import nearest

DEFAULT_LIMIT = 100
MAX_LIMIT = 500
"""Items of one page. A round of 64 members has 7 KB, so a page has 3.5 MB at most."""

MAX_CURSOR_CHARS = 128

T = TypeVar("T")


class BadQuery(Exception):
    """A request whose parameters cannot be used. `refusal` is the answer."""

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.refusal = Refusal(status=400, code="BAD_QUERY", what=what, fix=fix)


def parameters(query: str, known: Sequence[str]) -> dict[str, str]:
    """Return the parameters of a query string. Raises `BadQuery` for unknown or repeated ones."""
    found: dict[str, str] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=16, errors="strict")
    except (ValueError, UnicodeDecodeError):
        raise BadQuery("The query string cannot be read.") from None
    for name, value in pairs:
        if name not in known:
            meant = nearest(name, list(known))
            listed = ", ".join(known) or "none"
            raise BadQuery(
                "The query has an unknown parameter.",
                f"did you mean {meant}?" if meant else f"the parameters here are: {listed}",
            )
        if name in found:
            raise BadQuery(f"The parameter {name} occurs twice.")
        found[name] = value
    return found


def limit_of(given: Mapping[str, str]) -> int:
    """Return the wanted number of items. Raises `BadQuery`."""
    text = given.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdecimal() and len(text) <= 6 and 1 <= int(text) <= MAX_LIMIT):
        raise BadQuery(f"limit is a whole number from 1 to {MAX_LIMIT}.")
    return int(text)


def cursor_of(given: Mapping[str, str]) -> str:
    """Return the cursor, or an empty string for the first page. Raises `BadQuery`."""
    text = given.get("cursor", "")
    if len(text) > MAX_CURSOR_CHARS:
        raise bad_cursor()
    return text


def bad_cursor() -> BadQuery:
    """Return the refusal of a cursor that no answer gave."""
    return BadQuery(
        "The cursor cannot be read.", "take it from `next` of an answer, or leave it out"
    )


def number_of(text: str) -> int:
    """Return the number that a cursor is. Raises `BadQuery`."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise bad_cursor()
    return int(text)


def page_of(
    items: Sequence[T], limit: int, cursor: str, name: Callable[[T], str]
) -> tuple[tuple[T, ...], str]:
    """Return the items of one page, and the cursor of the next one; empty at the end.

    A cursor whose item is gone begins anew: the list is short, and has changed.
    """
    first = 0
    if cursor:
        first = next((i + 1 for i, one in enumerate(items) if name(one) == cursor), 0)
    page = tuple(items[first : first + limit])
    more = first + limit < len(items)
    return page, name(page[-1]) if page and more else ""


def next_link(path: str, limit: int, cursor: str) -> str:
    """Return the path and query of the next page; empty at the end."""
    return f"{path}?limit={limit}&cursor={quote(cursor, safe='')}" if cursor else ""
