"""The bytes that all connections of a host hold unread."""

from __future__ import annotations

from typing import Any

from daemon.network.libp2p.unread_bytes import UnreadBytes


class NeverSet:
    def is_set(self) -> bool:
        return False


class Holder:
    """A connection that holds `size` bytes unread."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.event_shutting_down = NeverSet()

    def unread(self) -> int:
        return self.size


def test_connection_to_cut_holds_most() -> None:
    unread = UnreadBytes(100)
    holders: list[Any] = [Holder(20), Holder(50), Holder(25)]
    for holder in holders:
        unread.watch(holder)
    assert unread.connection_to_cut(5) is None
    assert unread.connection_to_cut(6) is holders[1]
