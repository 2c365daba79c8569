"""Holds the events that wait for the round machine.

The node's own messages come first: nothing may come between sending a message and acting on it.
Events from peers and from the node's own work follow in order. A deadline waits for the events
before it, but not for long, so that a flood cannot stop the clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from protocol.round.events import DeadlinePassed, Event

# A deadline that is overdue by this much passes before the waiting events.
OVERDUE_S = 0.5
# Above this number of waiting events the node stops reading streams from peers. A round of 64
# members makes a few hundred events.
QUEUE_FULL = 2048


def ignore_event(event: Event) -> None:
    """Do nothing with an event."""


class EventQueue:
    """The events of one node, for the one task that steps its machine.

    `len` counts the events from peers and from the node's own work, but not its own messages.
    """

    def __init__(self, on_event: Callable[[Event], None] = ignore_event) -> None:
        """`on_event` receives each event as it enters the queue."""
        self._on_event = on_event
        self._waiting: deque[Event] = deque()
        self._ours: deque[Event] = deque()
        self._news = trio.Event()

    def put(self, event: Event, first: bool = False) -> None:
        """Add an event. `first` is for the node's own messages."""
        self._on_event(event)
        (self._ours if first else self._waiting).append(event)
        self._news.set()

    def wake(self) -> None:
        """Make `next` return without an event."""
        self._news.set()

    async def next(self, deadline: float) -> Event | None:
        """Wait for the next event.

        Returns:
            The event; `DeadlinePassed` once the deadline has passed; None after `wake`.
        """
        if not self._ours and not self._waiting:
            self._news = trio.Event()
            with trio.move_on_at(deadline):
                await self._news.wait()
        if self._ours:
            return self._ours.popleft()
        late_s = trio.current_time() - deadline
        if late_s >= 0 and (not self._waiting or late_s > OVERDUE_S):
            return DeadlinePassed()
        return self._waiting.popleft() if self._waiting else None

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, event: Event) -> bool:
        """Whether an equal event is waiting already."""
        return event in self._waiting

    @property
    def ready(self) -> bool:
        """Whether any event waits."""
        return bool(self._ours or self._waiting)

    @property
    def full(self) -> bool:
        """Whether so many events wait that peers must wait too."""
        return len(self._waiting) > QUEUE_FULL
