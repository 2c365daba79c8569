"""From the feed to every connected client. Belongs to the web thread.

A client that reads too slowly is dropped: it asks again with the id of its last event. So nobody
waits for another client, and the memory of a thousand clients is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from daemon.observer.history.event_feed import EventFeed
from daemon.observer.history.feed_event import FeedEvent

MAX_WAITING = 256
"""Events that wait for one client: a burst after a reconnection of the observer."""


class Subscription:
    """One client's queue of events."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[FeedEvent | None] = asyncio.Queue()
        self.dropped = False

    def offer(self, event: FeedEvent) -> None:
        """Add an event; drop the client where too many wait."""
        if self.dropped:
            return
        if self._queue.qsize() >= MAX_WAITING:
            self.drop()
            return
        self._queue.put_nowait(event)

    def drop(self) -> None:
        """End the subscription: the next `get` returns None."""
        self.dropped = True
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    async def get(self) -> FeedEvent | None:
        """Return the next event; None once the client was dropped."""
        return await self._queue.get()


class Broadcaster:
    """Gives each new event to all subscriptions."""

    def __init__(self, feed: EventFeed) -> None:
        """Listen to the feed. Call it in the loop of the web thread."""
        self._feed = feed
        self._subscriptions: set[Subscription] = set()
        loop = asyncio.get_running_loop()

        def heard(event: FeedEvent) -> None:
            # A RuntimeError means that the loop has ended.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._publish, event)

        feed.listener = heard

    def _publish(self, event: FeedEvent) -> None:
        for one in self._subscriptions:
            one.offer(event)

    @contextmanager
    def subscription(self) -> Iterator[Subscription]:
        """Subscribe while the block runs."""
        one = Subscription()
        self._subscriptions.add(one)
        try:
            yield one
        finally:
            self._subscriptions.discard(one)

    def close(self) -> None:
        """Stop to listen, and end every subscription."""
        self._feed.listener = None
        for one in list(self._subscriptions):
            one.drop()
