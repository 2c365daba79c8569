"""The stream of link changes that a fake network reports."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence

import trio

from protocol.ports.network import LinkChange


class FakeLinkChanges:
    """Link changes for one reader.

    The queue has no bound: a node reads its own changes, and there is one for each connection that
    was made or lost.
    """

    def __init__(self, first: Sequence[LinkChange]) -> None:
        self._queue = deque(first)
        self._readable = trio.lowlevel.ParkingLot()

    def put(self, change: LinkChange) -> None:
        self._queue.append(change)
        self._readable.unpark()

    def __aiter__(self) -> AsyncIterator[LinkChange]:
        return self

    async def __anext__(self) -> LinkChange:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._queue:
            await self._readable.park()
        return self._queue.popleft()
