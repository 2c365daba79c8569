"""Which established connection makes room, how many handlers run, and what all connections may hold
unread.
"""

from __future__ import annotations

import random
from typing import Any

from daemon.network.libp2p.connection import UnreadBytes
from daemon.network.limits.eviction import InboundConnection, choose_eviction
from daemon.network.limits.stream_quota import StreamQuota


def crowd(count: int, prefix: str = "crowd", since_s: float = 100.0) -> list[InboundConnection]:
    return [
        InboundConnection(f"{prefix} {n}", prefix, since_s + n, matters=False) for n in range(count)
    ]


def test_who_matters_and_who_was_here_first_stays() -> None:
    members = [InboundConnection(f"member {n}", "home", 500.0 + n, matters=True) for n in range(4)]
    early = crowd(10, since_s=0.0)
    late = crowd(10, since_s=1000.0)
    for seed in range(50):
        chosen = choose_eviction([*members, *early, *late], random.Random(seed))
        assert chosen in late


def test_the_most_crowded_prefix_makes_room_first() -> None:
    others = [InboundConnection(f"other {n}", f"net {n}", 2000.0, matters=False) for n in range(6)]
    for seed in range(50):
        chosen = choose_eviction([*crowd(8), *others], random.Random(seed))
        assert chosen is not None
        assert chosen.prefix == "crowd"


def test_nobody_makes_room_where_all_matter() -> None:
    assert (
        choose_eviction([InboundConnection("m", "home", 0.0, matters=True)], random.Random(1))
        is None
    )
    assert choose_eviction([], random.Random(1)) is None


def test_strangers_leave_a_quarter_of_all_handlers_to_those_that_matter() -> None:
    slots = StreamQuota(limit=2, in_all=8)
    releases = [slots.take(f"stranger {n}") for n in range(6)]
    assert slots.full("stranger 7", matters=False)
    assert not slots.full("member", matters=True)
    releases += [slots.take("member"), slots.take("member")]
    assert slots.full("member", matters=True)
    for release in (*releases, *releases):
        release()
    assert not slots.full("stranger 7", matters=False)
    assert not slots._taken


class Ended:
    def is_set(self) -> bool:
        return False


class Holder:
    """A connection that holds so many bytes unread."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.event_shutting_down = Ended()

    def unread(self) -> int:
        return self.size


def test_of_all_connections_the_one_that_holds_most_is_named() -> None:
    unread = UnreadBytes(100)
    holders: list[Any] = [Holder(20), Holder(50), Holder(25)]
    for holder in holders:
        unread.watch(holder)
    assert unread.too_much(5) is None
    assert unread.too_much(6) is holders[1]
