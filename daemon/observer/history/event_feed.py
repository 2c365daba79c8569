"""The newest events in memory. The trio side adds them, and the web thread reads them.

Ids begin at the time of the start in milliseconds, and after the last stored id. So they grow over
restarts too, even where the store lost its last events: an id that a client has seen never names
another event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock

from daemon.observer.history.feed_event import FeedEvent, Kind
from protocol.status import RoundSummary

KEPT_EVENTS = 1000
"""Events in memory, about 1 MB: several minutes of a busy swarm for a client that reconnects."""

Listener = Callable[[FeedEvent], None]


class EventFeed:
    """The last `KEPT_EVENTS` events. One thread adds; any thread reads."""

    def __init__(self, first_id: int = 1) -> None:
        self._lock = Lock()
        self._events: deque[FeedEvent] = deque(maxlen=KEPT_EVENTS)
        self._next_id = first_id
        self._first_id = first_id
        # Replaced whole by the web thread.
        self.listener: Listener | None = None

    def start_after(self, last_id: int) -> None:
        """Let ids begin above `last_id`. Call it before the first event."""
        with self._lock:
            self._next_id = self._first_id = max(self._next_id, last_id + 1)

    def add(
        self, *, at: float, kind: Kind, level: str, text: str, round: RoundSummary | None = None
    ) -> FeedEvent:
        """Add an event, and give it to the listener."""
        with self._lock:
            event = FeedEvent(
                id=self._next_id, at=at, kind=kind, level=level, text=text, round=round
            )
            self._next_id += 1
            self._events.append(event)
        listener = self.listener
        if listener is not None:
            listener(event)
        return event

    def newest(self, limit: int, before: int | None = None) -> list[FeedEvent]:
        """Return up to `limit` events with ids below `before`, the newest first."""
        with self._lock:
            events = list(self._events)
        found = [event for event in reversed(events) if before is None or event.id < before]
        return found[:limit]

    def after(self, last_id: int) -> list[FeedEvent] | None:
        """Return the events after `last_id`, oldest first; None where memory lacks some of them."""
        with self._lock:
            events = list(self._events)
            first = events[0].id if events else self._next_id
        if last_id + 1 < first:
            return None
        return [event for event in events if event.id > last_id]

    @property
    def oldest_id(self) -> int:
        """The id of the oldest event in memory; the next id where there is none."""
        with self._lock:
            return self._events[0].id if self._events else self._next_id

    @property
    def last_id(self) -> int:
        """The id of the newest event; below every id where there is none."""
        with self._lock:
            return self._next_id - 1
