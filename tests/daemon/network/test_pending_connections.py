"""Unfinished handshakes: a newcomer always finds a place, and the least likely one makes room."""

from __future__ import annotations

import pytest

from daemon.network.limits.pending_connections import PendingConnection, PendingConnections
from daemon.network.limits.prefixes import LOOPBACK_PREFIX, prefix_of

MOST = 8


class Caller:
    """One connection, and whether it was dropped."""

    def __init__(self, prefix: str, began_s: float, heard: bool = False) -> None:
        self.heard, self.dropped = heard, False
        self.pending = PendingConnection(prefix, began_s, lambda: self.heard, self._drop)

    def _drop(self) -> None:
        self.dropped = True


def test_forty_silent_connections_cost_a_newcomer_nothing() -> None:
    table = PendingConnections(MOST)
    silent = [Caller("a", float(n)) for n in range(40)]
    for caller in silent:
        table.begin(caller.pending)
    newcomer = Caller("a", 40.0)
    table.begin(newcomer.pending)
    newcomer.heard = True
    for n in range(MOST - 1):
        table.begin(Caller("a", 41.0 + n).pending)
    assert not newcomer.dropped, "it spoke, so the silent ones make room"
    assert sum(caller.dropped for caller in silent) >= 40 - MOST
    assert len(table) == MOST


def test_the_most_crowded_prefix_makes_room_first() -> None:
    table = PendingConnections(MOST)
    crowd = [Caller("crowd", 0.0, heard=True) for _ in range(MOST - 1)]
    alone = Caller("alone", 0.0)
    for caller in (*crowd, alone):
        table.begin(caller.pending)
    other = Caller("other", 1.0)
    table.begin(other.pending)
    assert [caller.dropped for caller in (alone, other)] == [False, False]
    assert sum(caller.dropped for caller in crowd) == 1


def test_the_newest_never_makes_room_for_itself() -> None:
    table = PendingConnections(1)
    first, second = Caller("a", 0.0, heard=True), Caller("b", 1.0)
    table.begin(first.pending)
    assert table.begin(second.pending) is first.pending
    assert not second.dropped


def test_an_ended_handshake_leaves_nothing_behind() -> None:
    table = PendingConnections(2)
    caller = Caller("a", 0.0)
    table.begin(caller.pending)
    table.end(caller.pending)
    table.end(caller.pending)
    assert len(table) == 0
    assert not table._of_prefix


@pytest.mark.parametrize(
    ("host", "prefix"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("127.0.0.9", LOOPBACK_PREFIX),
        ("::1", LOOPBACK_PREFIX),
        ("::ffff:203.0.113.5", "203.0.113.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("example.org", "example.org"),
        ("", ""),
    ],
)
def test_prefixes_of_addresses(host: str, prefix: str) -> None:
    assert prefix_of(host) == prefix
