"""Connections that strangers began and that are no session yet: how many there may be, and which
one makes room.

Whoever connects costs a socket, a task and a buffer before anything is known of it but its address.
The table never refuses a newcomer. When it is full, the connection that is least likely to become a
session is dropped. The choice goes in this order, as in Bitcoin Core's eviction
(`node/eviction.cpp`):

1. a connection of the prefix that holds the most places;
2. within that prefix, a connection that has sent nothing;
3. of those, the oldest.

So forty silent connections, or four thousand, cost a newcomer nothing: the newcomer speaks at once
and the silent ones make room. Somebody who speaks and then stops is the oldest of its prefix soon.
A flood from one prefix drops its own connections and nobody else's.

Pure: time is an argument, and dropping is what `drop` does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable


class PendingConnection:
    """One unfinished handshake. `heard` tells whether the other side has sent a byte."""

    def __init__(
        self, prefix: str, began_s: float, heard: Callable[[], bool], drop: Callable[[], None]
    ) -> None:
        self.prefix = prefix
        self.began_s = began_s
        self.heard = heard
        self.drop = drop


class PendingConnections:
    """The unfinished handshakes of one listener; never more than `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[PendingConnection, None] = {}
        self._of_prefix: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, one: PendingConnection) -> PendingConnection | None:
        """Give `one` a place. Returns the handshake that was dropped for it, or None."""
        self._open[one] = None
        self._of_prefix[one.prefix] += 1
        if len(self._open) <= self._most:
            return None
        dropped = self._least_likely(one)
        self.end(dropped)
        dropped.drop()
        return dropped

    def end(self, one: PendingConnection) -> None:
        """`one` became a session or failed. Ending it twice does nothing."""
        if one in self._open:
            del self._open[one]
            self._of_prefix[one.prefix] -= 1
            if not self._of_prefix[one.prefix]:
                del self._of_prefix[one.prefix]

    def _least_likely(self, newest: PendingConnection) -> PendingConnection:
        """Never the newest: it had no time to say anything."""
        others = [one for one in self._open if one is not newest]
        return min(others, key=lambda one: (-self._of_prefix[one.prefix], one.heard(), one.began_s))
