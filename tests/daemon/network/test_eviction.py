"""Which established connection makes room for a newcomer."""

from __future__ import annotations

import random

from daemon.network.limits.eviction import InboundConnection, choose_eviction


def crowd(count: int, prefix: str = "crowd", since_s: float = 100.0) -> list[InboundConnection]:
    return [
        InboundConnection(f"{prefix} {n}", prefix, since_s + n, matters=False) for n in range(count)
    ]


def test_peers_that_matter_and_early_peers_stay() -> None:
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


def test_no_connection_makes_room_where_all_matter() -> None:
    assert (
        choose_eviction([InboundConnection("m", "home", 0.0, matters=True)], random.Random(1))
        is None
    )
    assert choose_eviction([], random.Random(1)) is None
