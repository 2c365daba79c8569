"""Signals that a condition may have changed."""

from __future__ import annotations

from collections.abc import Callable

import trio


class Signal:
    """Wakes every task that waits for a change.

    Each waiting task checks its own condition again: a change carries no information.
    """

    def __init__(self) -> None:
        self._event = trio.Event()

    def notify(self) -> None:
        """Wake every waiting task."""
        self._event.set()
        self._event = trio.Event()

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait until `reached` returns true; call it again after each change."""
        while not reached():
            await self._event.wait()
