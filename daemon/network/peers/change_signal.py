"""A signal that wakes one waiting task when something changed."""

from __future__ import annotations

import trio


class ChangeSignal:
    """Set by anyone, awaited by one task, which calls `renew` before it looks for changes."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        self._event.set()

    def renew(self) -> None:
        """From now on, `wait` waits for the next `set`."""
        self._event = trio.Event()

    async def wait(self) -> None:
        await self._event.wait()
