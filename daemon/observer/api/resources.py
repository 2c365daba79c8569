"""What `/api/v1/...` answers to a query: pages of lists, one run, the rewards of an account.

To add a resource, write a function `(Sources, path part, parameters) -> bytes` and add a `Resource`
to `RESOURCES`. It may block on the disk: the server runs it in a thread where `blocks` is set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from daemon.observer.api.query import (
    BadQuery,
    bad_cursor,
    cursor_of,
    limit_of,
    next_link,
    number_of,
    page_of,
)
from daemon.observer.history.event_feed import EventFeed
from daemon.observer.history.feed_event import FeedEvent
from daemon.observer.history.history_store import HistoryStore, HistoryUnavailable
from daemon.observer.request_guard import Refusal
from protocol.status import PeerSummary, RoundSummary, RunSummary, Status

_encode = msgspec.json.Encoder().encode


class Unavailable(Exception):
    """A resource that cannot be served now: the answer is 503 with this sentence."""

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.refusal = Refusal(status=503, code="UNAVAILABLE", what=what, fix=fix)


class RewardsBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/api/v1/rewards/{address}`. Amounts are base units, as decimal strings."""

    as_of: float
    address: str
    pays: bool
    earned: str = "0"
    claimable: str = "0"
    claimed: str = "0"
    pending: str = "0"
    pending_at_s: float | None = None
    note: str = ""


Rewards = Callable[[str, float], RewardsBody]
"""Looks an address up; blocks. Raises `BadQuery` for text that is no address, `Unavailable`."""


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """The sources of all resources. `status` is the newest one published."""

    status: Status
    feed: EventFeed
    store: HistoryStore | None
    rewards: Rewards | None


class RunBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/api/v1/run`."""

    as_of: float
    verdict: str
    level: str
    run: RunSummary


class PeersPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of `/api/v1/peers`, connected ones first. `next` is empty at the end."""

    as_of: float
    peers: tuple[PeerSummary, ...]
    lost: tuple[PeerSummary, ...]
    next: str


class RoundsPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of `/api/v1/rounds` or `/api/v1/history`, newest first."""

    as_of: float
    rounds: tuple[RoundSummary, ...]
    next: str


class EventsPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of `/api/v1/events`, newest first."""

    as_of: float
    events: tuple[FeedEvent, ...]
    next: str


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """One path, and how its answer is computed.

    `path` may end in one `{parameter}`. `answer` gets the sources, that part of the path, and the
    parameters of the query.
    """

    path: str
    summary: str
    body: type[msgspec.Struct]
    answer: Callable[[Sources, str, Mapping[str, str]], msgspec.Struct]
    parameters: tuple[str, ...] = ()
    # What a cursor of this list looks like; empty for any text.
    cursor_pattern: str = ""
    blocks: bool = False

    def matches(self, path: str) -> str | None:
        """Return the last part of a path that this resource serves; None for another path."""
        head, brace, _ = self.path.partition("{")
        if not brace:
            return "" if path == self.path else None
        part = path.removeprefix(head)
        return part if path.startswith(head) and part and "/" not in part else None


def _run(sources: Sources, _part: str, _given: Mapping[str, str]) -> RunBody:
    status = sources.status
    return RunBody(as_of=status.as_of, verdict=status.verdict, level=status.level, run=status.run)


def _peers(sources: Sources, _part: str, given: Mapping[str, str]) -> PeersPage:
    status, limit = sources.status, limit_of(given)
    cursor = cursor_of(given)
    page, after = page_of(status.peers, limit, cursor, lambda peer: peer.peer)
    return PeersPage(
        as_of=status.as_of,
        peers=page,
        lost=status.lost if not cursor else (),
        next=next_link("/api/v1/peers", limit, after),
    )


def _round_name(one: RoundSummary) -> str:
    return one.certificate or f"{one.number}.{one.view}"


def _rounds(sources: Sources, _part: str, given: Mapping[str, str]) -> RoundsPage:
    status, limit = sources.status, limit_of(given)
    page, after = page_of(status.rounds, limit, cursor_of(given), _round_name)
    return RoundsPage(
        as_of=status.as_of, rounds=page, next=next_link("/api/v1/rounds", limit, after)
    )


def _history(sources: Sources, _part: str, given: Mapping[str, str]) -> RoundsPage:
    limit, cursor = limit_of(given), cursor_of(given)
    before = None
    if cursor:
        number, dot, certificate = cursor.partition(".")
        if not dot:
            raise bad_cursor()
        before = number_of(number), certificate
    store = sources.store
    if store is None:
        raise Unavailable(
            "No history is kept here.",
            "/api/v1/rounds has the last rounds; an observer with observer.history_mb keeps all",
        )
    try:
        found = store.rounds(limit + 1, before)
    except HistoryUnavailable as error:
        raise Unavailable(_sentence(str(error)), "/api/v1/rounds has the last rounds") from None
    page = tuple(found[:limit])
    more = len(found) > limit
    after = f"{page[-1].number}.{page[-1].certificate}" if more else ""
    return RoundsPage(
        as_of=sources.status.as_of, rounds=page, next=next_link("/api/v1/history", limit, after)
    )


def _events(sources: Sources, _part: str, given: Mapping[str, str]) -> EventsPage:
    limit, cursor = limit_of(given), cursor_of(given)
    before = number_of(cursor) if cursor else None
    found = sources.feed.newest(limit + 1, before)
    if len(found) <= limit and sources.store is not None:
        oldest = found[-1].id if found else before or sources.feed.oldest_id
        try:
            found += sources.store.events_before(oldest, limit + 1 - len(found))
        except HistoryUnavailable as error:
            if not found:
                raise Unavailable(_sentence(str(error))) from None
    page = tuple(found[:limit])
    after = str(page[-1].id) if len(found) > limit else ""
    return EventsPage(
        as_of=sources.status.as_of, events=page, next=next_link("/api/v1/events", limit, after)
    )


def _rewards(sources: Sources, part: str, _given: Mapping[str, str]) -> RewardsBody:
    if len(part) != 42 or part[:2].lower() != "0x" or not _is_hex(part[2:]):
        raise BadQuery("An address is 0x and 40 hexadecimal digits.")
    if sources.rewards is None:
        raise Unavailable("This observer does not know its run yet.", "ask again in a few seconds")
    return sources.rewards(part, sources.status.as_of)


def _is_hex(text: str) -> bool:
    return all(letter in "0123456789abcdefABCDEF" for letter in text)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


PAGED = ("limit", "cursor")

RESOURCES: tuple[Resource, ...] = (
    Resource(path="/api/v1/run", summary="The run and its verdict.", body=RunBody, answer=_run),
    Resource(
        path="/api/v1/peers",
        summary="The peers, connected ones first.",
        body=PeersPage,
        answer=_peers,
        parameters=PAGED,
    ),
    Resource(
        path="/api/v1/rounds",
        summary="The last 40 rounds and tries, newest first.",
        body=RoundsPage,
        answer=_rounds,
        parameters=PAGED,
    ),
    Resource(
        path="/api/v1/history",
        summary="All rounds that this observer verified, highest number first.",
        body=RoundsPage,
        answer=_history,
        parameters=PAGED,
        cursor_pattern=r"^[0-9]{1,18}\.[0-9a-f]{0,64}$",
        blocks=True,
    ),
    Resource(
        path="/api/v1/events",
        summary="What happened, newest first. With Accept: text/event-stream, as it happens.",
        body=EventsPage,
        answer=_events,
        parameters=PAGED,
        cursor_pattern="^[0-9]{1,18}$",
        blocks=True,
    ),
    Resource(
        path="/api/v1/rewards/{address}",
        summary="What an account earned in this run.",
        body=RewardsBody,
        answer=_rewards,
        blocks=True,
    ),
)


def find_resource(path: str) -> tuple[Resource, str] | None:
    """Return the resource that serves a path, and the last part of the path."""
    for one in RESOURCES:
        part = one.matches(path)
        if part is not None:
            return one, part
    return None


def encode(body: Any) -> bytes:
    """Encode a body as JSON."""
    return _encode(body)
