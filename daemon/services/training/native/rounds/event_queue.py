"""What happened and waits to be stepped by the round machine.

First comes what the node told itself: nothing may come between saying a thing and acting on it.
Then what came from others and from its own work, in order. A deadline may wait for the events
before it, but not for long: no flood may stop the clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from protocol.round.events import DeadlinePassed, Event

# A deadline passes before events that have waited this long behind it.
OVERDUE_S = 0.5
# Events waiting: above this, streams from peers are not read on (a round of 64 members makes a few
# hundred).
INBOX_FULL = 2048


def _ignore(event: Event) -> None:
    """Nobody watches the events."""


class EventQueue:
    """The events of one node, taken one at a time by one task.

    `len` counts those that came from others and from its own work.
    """

    def __init__(self, on_event: Callable[[Event], None] = _ignore) -> None:
        """`on_event` receives each event as it is put."""
        self._on_event = on_event
        self._waiting: deque[Event] = deque()
        self._ours: deque[Event] = deque()
        self._news = trio.Event()

    def put(self, event: Event, first: bool = False) -> None:
        """`first` is for what the node told itself."""
        self._on_event(event)
        (self._ours if first else self._waiting).append(event)
        self._news.set()

    def wake(self) -> None:
        """Whoever waits for an event goes on without one."""
        self._news.set()

    async def next(self, deadline: float) -> Event | None:
        """The next event; `DeadlinePassed` when the deadline has passed, None after `wake`."""
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
        """Whether the same event came before and waits."""
        return event in self._waiting

    @property
    def ready(self) -> bool:
        """Whether anything waits at all."""
        return bool(self._ours or self._waiting)

    @property
    def full(self) -> bool:
        return len(self._waiting) > INBOX_FULL
