"""Answers that cost memory are given a few at a time: of one peer, and in all.

Who comes late waits with nothing but its stream. Keys are free, so strangers that read slowly could
hold every place. Therefore:

1. strangers hold three quarters of the places at most: the rest is for peers that matter (members
   by our certificates, and peers that the user named);
2. where no place is left, the oldest turn of a stranger ends, of the prefix with the most turns:
   for a peer that matters at once, for a stranger of a prefix with fewer turns at once, and for any
   other stranger once that turn lasts `LEAST_TURN_S`.

A turn of a peer that matters never ends early.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from protocol.errors import PeerFault
from protocol.identity import PeerId
from protocol.ports.network import Source

# Between looks at whether the turn has come: no waiter is woken for another one's sake.
LOOK_S = 0.05
# What the slowest reader has while others wait: a chunk of 256 KiB at 210 kbit/s.
LEAST_TURN_S = 10.0

SourceOf = Callable[[PeerId], Source]


class _Turn:
    """One that is taken. Its prefix is that of when it began: the peer may be gone since."""

    def __init__(self, peer: PeerId, prefix: str) -> None:
        self.peer, self.prefix = peer, prefix
        self.began_s = trio.current_time()
        self.scope = trio.CancelScope()


class ReplyLimiter:
    """At most `of_peer` turns of one peer and `in_all` of all."""

    def __init__(self, of_peer: int, in_all: int, source_of: SourceOf) -> None:
        self._of_peer, self._in_all, self._source_of = of_peer, in_all, source_of
        self._taken: dict[_Turn, None] = {}  # the oldest first

    @property
    def count(self) -> int:
        """Turns that are taken now."""
        return len(self._taken)

    @asynccontextmanager
    async def turn(self, peer: PeerId) -> AsyncIterator[None]:
        """Waits for a turn and gives it back at the block's end. How long to wait is the caller's
        deadline. Raises `PeerFault("timeout")` where the turn ended early for somebody else's."""
        await trio.lowlevel.checkpoint()
        while (source := self._room_for(peer)) is None:
            await trio.sleep(LOOK_S)
        mine = _Turn(peer, source.prefix)
        self._taken[mine] = None
        try:
            with mine.scope:
                yield
        finally:
            self._taken.pop(mine, None)
        if mine.scope.cancelled_caught:
            held_s = trio.current_time() - mine.began_s
            raise PeerFault("timeout", f"it read for {held_s:.0f} s, and others wait")

    def _room_for(self, peer: PeerId) -> Source | None:
        """Where `peer` comes from, once there is a place for it; another turn may end for that."""
        if sum(one.peer == peer for one in self._taken) >= self._of_peer:
            return None
        source = self._source_of(peer)
        strangers = [one for one in self._taken if not self._source_of(one.peer).matters]
        full = self.count >= self._in_all
        if not source.matters:
            full = full or len(strangers) >= max(1, self._in_all * 3 // 4)
        if not full:
            return source
        oldest = _oldest_of_the_crowd(source, strangers)
        if oldest is None:
            return None
        # Its place is free from now on: what it still holds goes as soon as its task runs again.
        oldest.scope.cancel()
        del self._taken[oldest]
        return source


def _oldest_of_the_crowd(newcomer: Source, strangers: list[_Turn]) -> _Turn | None:
    """The turn that ends for a newcomer. `strangers` are the turns of strangers, oldest first."""
    crowd = Counter(one.prefix for one in strangers)
    most = max(crowd.values(), default=0)
    oldest = next((one for one in strangers if crowd[one.prefix] == most), None)
    if oldest is None or newcomer.matters or crowd[newcomer.prefix] + 1 < most:
        return oldest
    return oldest if trio.current_time() - oldest.began_s >= LEAST_TURN_S else None
