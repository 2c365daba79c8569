"""Strangers whose gossip is accepted: limited by bringer, by network and in all."""

from __future__ import annotations

from daemon.network.limits.stranger_quota import (
    FORGOTTEN_S,
    IN_ALL,
    OF_BRINGER,
    OF_PREFIX,
    StrangerQuota,
)


def test_one_connection_brings_few_strangers_and_another_brings_more() -> None:
    quota = StrangerQuota()
    heard = [n for n in range(4000) if quota.allows(f"key {n}", "flooder", "a", 0.0)]
    assert heard == list(range(OF_BRINGER))
    assert quota.allows("key 3999", "neighbour", "b", 0.0), (
        "a neighbour with places left may bring it"
    )
    assert quota.allows("key 0", "another", "c", 1.0), "any neighbour may bring a known stranger"


def test_one_network_and_all_networks_have_their_share() -> None:
    quota = StrangerQuota()
    of_one = sum(
        quota.allows(f"key {b} {n}", f"bringer {b}", "net", 0.0)
        for b in range(20)
        for n in range(20)
    )
    assert of_one == OF_PREFIX
    for b in range(100):
        for n in range(20):
            quota.allows(f"far {b} {n}", f"far bringer {b}", f"net {b}", 0.0)
    assert len(quota) == IN_ALL


def test_silent_strangers_give_their_places_back() -> None:
    quota = StrangerQuota()
    for n in range(OF_BRINGER):
        quota.allows(f"key {n}", "bringer", "a", 0.0)
    quota.allows("key 0", "bringer", "a", FORGOTTEN_S)
    assert not quota.allows("late", "bringer", "a", FORGOTTEN_S)
    assert quota.allows("late", "bringer", "a", FORGOTTEN_S + 1)
    assert len(quota) == 2
    for signer in ("key 0", "late", "late"):
        quota.forget(signer)
    assert (len(quota), len(quota._of_bringer), len(quota._of_prefix)) == (0, 0, 0)
