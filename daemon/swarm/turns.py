"""Answers that cost memory are given a few at a time: of one peer, and in all. Who comes late waits with nothing but its stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from protocol.identity import PeerId

LOOK_S = 0.05  # between looks at whether the turn has come: no waiter is woken for another one's sake


class Turns:
    """At most `of_peer` turns of one peer and `in_all` of all."""

    def __init__(self, of_peer: int, in_all: int) -> None:
        self._of_peer, self._in_all = of_peer, in_all
        self._taken: Counter[PeerId] = Counter()

    @property
    def count(self) -> int:
        """Turns that are taken now."""
        return self._taken.total()

    @asynccontextmanager
    async def turn(self, peer: PeerId) -> AsyncIterator[None]:
        """Waits for a turn and gives it back at the block's end. How long to wait is the caller's deadline."""
        await trio.lowlevel.checkpoint()
        while self._taken.get(peer, 0) >= self._of_peer or self.count >= self._in_all:
            await trio.sleep(LOOK_S)
        self._taken[peer] += 1
        try:
            yield
        finally:
            self._taken[peer] -= 1
            if not self._taken[peer]:
                del self._taken[peer]
