"""Connections whose handshake is unfinished: how many there may be, and which one makes room.

A stranger that connects costs a socket, a task and a buffer before anything is known of it but its
address. The table never refuses a newcomer. When it is full, it drops the connection that is least
likely to become a session. The choice goes in this order, as in Bitcoin Core's eviction
(`node/eviction.cpp`):

1. a connection of the prefix that holds the most places;
2. within that prefix, a connection that has sent nothing;
3. of those, the oldest.

So forty or four thousand silent connections cost a newcomer nothing: the newcomer speaks at once,
and the silent ones make room. A peer that speaks and then stops is soon the oldest of its prefix.
A flood from one prefix drops its own connections and no others.

Pure: time is an argument, and `drop` does the dropping.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable


class PendingConnection:
    """One unfinished handshake. `heard` says whether the other side has sent a byte."""

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
        """Add a connection. Returns the one that was dropped for it, or None."""
        self._open[one] = None
        self._of_prefix[one.prefix] += 1
        if len(self._open) <= self._most:
            return None
        dropped = self._least_likely(one)
        self.end(dropped)
        dropped.drop()
        return dropped

    def end(self, one: PendingConnection) -> None:
        """Remove a connection that became a session or failed. A second call does nothing."""
        if one in self._open:
            del self._open[one]
            self._of_prefix[one.prefix] -= 1
            if not self._of_prefix[one.prefix]:
                del self._of_prefix[one.prefix]

    def _least_likely(self, newest: PendingConnection) -> PendingConnection:
        """The connection to drop; never the newest, which had no time to send anything."""
        others = [one for one in self._open if one is not newest]
        return min(others, key=lambda one: (-self._of_prefix[one.prefix], one.heard(), one.began_s))
