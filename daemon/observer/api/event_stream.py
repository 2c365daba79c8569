"""`/api/v1/events` as server-sent events.

See https://html.spec.whatwg.org/multipage/server-sent-events.html.

Each event has its id, so that a browser that reconnects gets what it missed: from memory, else from
the store. An event of the type `reset` says that events before it are missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

import msgspec
from aiohttp import web

from daemon.observer.api.broadcaster import Broadcaster
from daemon.observer.history.event_feed import EventFeed
from daemon.observer.history.feed_event import FeedEvent
from daemon.observer.history.history_store import HistoryStore, HistoryUnavailable

MEDIA_TYPE = "text/event-stream"
HEARTBEAT_S = 15.0
"""Between two signs of life. Proxies close connections that are silent for a minute."""

WRITE_S = 10.0
"""A client that takes longer to read one event is closed; it asks again from there."""

RETRY_MS = 2000
MAX_REPLAY = 2000
"""Stored events that a reconnecting client gets. After more, `reset` says to read the history."""

_encode = msgspec.json.Encoder().encode


def last_event_id(headers: Mapping[str, str]) -> int | None:
    """Return the id in Last-Event-ID; None without a usable one."""
    text = headers.get("Last-Event-ID", "").strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None


def encoded(event: FeedEvent) -> bytes:
    """Encode an event for the stream."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.kind.encode(), _encode(event))


async def missed(feed: EventFeed, store: HistoryStore | None, last: int) -> AsyncIterator[bytes]:
    """Yield what a client has missed since the event `last`."""
    in_memory = feed.after(last)
    if in_memory is None and store is not None:
        stored: list[FeedEvent] = []
        with suppress(HistoryUnavailable):
            stored = await asyncio.to_thread(store.events_after, last, MAX_REPLAY)
        if 0 < len(stored) < MAX_REPLAY:
            for event in stored:
                yield encoded(event)
            last = stored[-1].id
            in_memory = [event for event in feed.newest(MAX_REPLAY) if event.id > last][::-1]
    if in_memory is None:
        yield b'event: reset\ndata: {"missing_after":%d}\n\n' % last
        in_memory = []
    for event in in_memory:
        yield encoded(event)


async def stream_events(
    request: web.BaseRequest,
    headers: Mapping[str, str],
    feed: EventFeed,
    store: HistoryStore | None,
    broadcaster: Broadcaster,
) -> web.StreamResponse:
    """Send events until the client leaves, or reads too slowly, or the server stops."""
    last = last_event_id(request.headers)
    response = web.StreamResponse(
        headers={
            **headers,
            "Content-Type": f"{MEDIA_TYPE}; charset=utf-8",
            "Cache-Control": "no-store",
            # nginx would collect events before it passes them on.
            "X-Accel-Buffering": "no",
        }
    )
    response.force_close()
    # The client may leave at any time; a slow one is closed.
    with broadcaster.subscription() as events, suppress(ConnectionError, TimeoutError):
        await response.prepare(request)
        await _write(response, b"retry: %d\n\n" % RETRY_MS)
        sent = 0
        if last is not None and last <= feed.last_id:
            sent = feed.last_id
            async for data in missed(feed, store, last):
                await _write(response, data)
        while True:
            try:
                event = await asyncio.wait_for(events.get(), HEARTBEAT_S)
            except TimeoutError:
                await _write(response, b":\n\n")
                continue
            if event is None:
                break
            if event.id > sent:
                await _write(response, encoded(event))
        await asyncio.wait_for(response.write_eof(), WRITE_S)
    return response


async def _write(response: web.StreamResponse, data: bytes) -> None:
    """Send bytes. Raises `TimeoutError` for a client that does not read."""
    await asyncio.wait_for(response.write(data), WRITE_S)
