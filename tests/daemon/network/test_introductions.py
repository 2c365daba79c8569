"""Strangers whose gossip is listened to: bounded by who brings them, by network and in all, and
forgotten when silent.
"""

from __future__ import annotations

from daemon.network.limits.stranger_quota import (
    FORGOTTEN_S,
    IN_ALL,
    OF_BRINGER,
    OF_PREFIX,
    StrangerQuota,
)


def test_one_connection_brings_few_strangers_and_another_brings_more() -> None:
    table = StrangerQuota()
    heard = [n for n in range(4000) if table.allows(f"key {n}", "flooder", "a", 0.0)]
    assert heard == list(range(OF_BRINGER))
    assert table.allows("key 3999", "neighbour", "b", 0.0), "who has places left may bring it"
    assert table.allows("key 0", "anybody", "c", 1.0), (
        "who was heard is heard from whoever brings it"
    )


def test_one_network_and_all_networks_have_their_share() -> None:
    table = StrangerQuota()
    of_one = sum(
        table.allows(f"key {b} {n}", f"bringer {b}", "net", 0.0)
        for b in range(20)
        for n in range(20)
    )
    assert of_one == OF_PREFIX
    for b in range(100):
        for n in range(20):
            table.allows(f"far {b} {n}", f"far bringer {b}", f"net {b}", 0.0)
    assert len(table) == IN_ALL


def test_the_silent_give_their_places_back() -> None:
    table = StrangerQuota()
    for n in range(OF_BRINGER):
        table.allows(f"key {n}", "bringer", "a", 0.0)
    table.allows("key 0", "bringer", "a", FORGOTTEN_S)
    assert not table.allows("late", "bringer", "a", FORGOTTEN_S)
    assert table.allows("late", "bringer", "a", FORGOTTEN_S + 1)
    assert len(table) == 2
    for signer in ("key 0", "late", "late"):
        table.forget(signer)
    assert (len(table), len(table._of_bringer), len(table._of_prefix)) == (0, 0, 0)
