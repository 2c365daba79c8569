"""Limits how many answers that cost memory are under way: for one peer, and in all.

A peer that comes late waits, and holds nothing but its stream. Keys are free, so strangers that
read slowly could hold every slot. Therefore:

1. Strangers hold three quarters of the slots at most. The rest is for peers that matter: members by
   our certificates, and peers that the user named.
2. Where no slot is left, the oldest slot of a stranger ends, of the prefix with the most slots. A
   peer that matters gets it at once, and so does a stranger of a prefix with fewer slots. Any other
   stranger gets it once the slot has lasted `MIN_SLOT_S`.

A slot of a peer that matters never ends early.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from protocol.errors import PeerFault
from protocol.identity import PeerId
from protocol.ports.network import Source

# A waiter checks at this interval whether a slot is free.
LOOK_S = 0.05
# The time of the slowest reader while others wait: a chunk of 256 KiB at 210 kbit/s.
MIN_SLOT_S = 10.0

SourceOf = Callable[[PeerId], Source]


class _Slot:
    """One answer under way. The prefix is that of its beginning, since the peer may be gone."""

    def __init__(self, peer: PeerId, prefix: str) -> None:
        self.peer, self.prefix = peer, prefix
        self.began_s = trio.current_time()
        self.scope = trio.CancelScope()


class ReplyLimiter:
    """At most `of_peer` slots of one peer and `in_all` of all peers."""

    def __init__(self, of_peer: int, in_all: int, source_of: SourceOf) -> None:
        self._of_peer, self._in_all, self._source_of = of_peer, in_all, source_of
        # The oldest slot comes first.
        self._slots: dict[_Slot, None] = {}

    @property
    def count(self) -> int:
        """How many slots are in use now."""
        return len(self._slots)

    @asynccontextmanager
    async def slot(self, peer: PeerId) -> AsyncIterator[None]:
        """Wait for a slot, and give it back at the end of the block.

        The caller sets a deadline for the wait.

        Raises:
            PeerFault: "timeout" when the slot ended early for another peer.
        """
        await trio.lowlevel.checkpoint()
        while (source := self._room_for(peer)) is None:
            await trio.sleep(LOOK_S)
        mine = _Slot(peer, source.prefix)
        self._slots[mine] = None
        try:
            with mine.scope:
                yield
        finally:
            self._slots.pop(mine, None)
        if mine.scope.cancelled_caught:
            held_s = trio.current_time() - mine.began_s
            raise PeerFault("timeout", f"it read for {held_s:.0f} s, and others wait")

    def _room_for(self, peer: PeerId) -> Source | None:
        """The source of `peer` once it may have a slot; another slot may end for that."""
        if sum(one.peer == peer for one in self._slots) >= self._of_peer:
            return None
        source = self._source_of(peer)
        strangers = [one for one in self._slots if not self._source_of(one.peer).matters]
        full = self.count >= self._in_all
        if not source.matters:
            full = full or len(strangers) >= max(1, self._in_all * 3 // 4)
        if not full:
            return source
        oldest = _oldest_of_the_crowd(source, strangers)
        if oldest is None:
            return None
        # The slot is free from now on. Its memory is freed as soon as its task runs again.
        oldest.scope.cancel()
        del self._slots[oldest]
        return source


def _oldest_of_the_crowd(newcomer: Source, strangers: list[_Slot]) -> _Slot | None:
    """The slot that ends for a newcomer. `strangers` are the slots of strangers, oldest first."""
    crowd = Counter(one.prefix for one in strangers)
    most = max(crowd.values(), default=0)
    oldest = next((one for one in strangers if crowd[one.prefix] == most), None)
    if oldest is None or newcomer.matters or crowd[newcomer.prefix] + 1 < most:
        return oldest
    return oldest if trio.current_time() - oldest.began_s >= MIN_SLOT_S else None
