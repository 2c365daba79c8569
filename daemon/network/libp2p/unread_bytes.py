"""The received bytes that the connections of one host hold unread, all together."""

from __future__ import annotations

from typing import Protocol
from weakref import WeakSet

import trio

# Honest connections are read as their bytes arrive, so this is the share of the memory that a
# flood may have.
MAX_UNREAD_BYTES = 96 << 20


class Holder(Protocol):
    """A connection that holds unread bytes."""

    event_shutting_down: trio.Event

    def unread(self) -> int: ...
    async def cut(self, why: str) -> None: ...


class UnreadBytes:
    """Adds up unread bytes, and names the connection to cut when they are too many."""

    def __init__(self, most: int = MAX_UNREAD_BYTES) -> None:
        self._most = most
        self._connections: WeakSet[Holder] = WeakSet()

    def watch(self, connection: Holder) -> None:
        self._connections.add(connection)

    def connection_to_cut(self, coming: int) -> Holder | None:
        """The connection that holds most, when `coming` more bytes are too many in all."""
        held = {
            one: one.unread() for one in self._connections if not one.event_shutting_down.is_set()
        }
        if not held or sum(held.values()) + coming <= self._most:
            return None
        return max(held, key=held.__getitem__)
