"""What members' calls say of a node, and which paths lead to a peer."""

from __future__ import annotations

import itertools

import pytest

from protocol.network.reachability import (
    KIND_OF,
    UNKNOWN_REACHABILITY,
    DialBackResult,
    Reachability,
    RelayOffer,
    conclude,
    is_private,
    misnamed,
    order_relays,
    reachability_text,
    ways_to,
)

PUBLIC = Reachability(callable=True, nat="none", observed="203.0.113.10")
CONE = Reachability(callable=False, nat="cone", observed="203.0.113.101")
SYMMETRIC = Reachability(callable=False, nat="symmetric", observed="203.0.113.102")
EVERY = (PUBLIC, CONE, SYMMETRIC, UNKNOWN_REACHABILITY)


def result(observed: str, arrived: bool, by: str = "p") -> DialBackResult:
    return DialBackResult(by=by, observed=observed, control=arrived, bulk=arrived)


def test_conclude_knows_nothing_before_a_member_called() -> None:
    assert conclude([], ["192.168.1.10"], None) == UNKNOWN_REACHABILITY


def test_conclude_counts_members_outside_before_those_of_the_same_network() -> None:
    found = conclude(
        [result("203.0.113.101", False), result("192.168.1.10", True)], ["192.168.1.10"], False
    )
    assert found == CONE
    near = conclude([result("192.168.1.10", True)], ["192.168.1.10"], None)
    assert near == Reachability(callable=True, nat="none", observed="192.168.1.10")


@pytest.mark.parametrize(
    ("seen", "advertised", "elsewhere"),
    [
        (("203.0.113.10",), ("203.0.113.99",), "203.0.113.10"),
        (("203.0.113.10",), ("203.0.113.99", "203.0.113.10"), ""),
        (("203.0.113.9", "203.0.113.10"), ("203.0.113.9",), ""),
        # Nothing is known of the advertised family, or from inside the same network.
        (("203.0.113.10",), ("2a01::9",), ""),
        (("192.168.1.10",), ("203.0.113.99",), ""),
        ((), ("203.0.113.99",), ""),
        (("203.0.113.10",), (), ""),
    ],
)
def test_misnamed_where_no_member_sees_an_advertised_address(
    seen: tuple[str, ...], advertised: tuple[str, ...], elsewhere: str
) -> None:
    assert misnamed([result(host, True) for host in seen], advertised) == elsewhere


def test_the_text_of_a_misnamed_node_names_both_addresses() -> None:
    text = reachability_text(CONE, "203.0.113.99")
    assert "203.0.113.99" in text
    assert CONE.observed in text


def test_conclude_needs_both_ports() -> None:
    half = DialBackResult(by="p", observed="203.0.113.10", control=True, bulk=False)
    assert conclude([half], [], None).callable is False
    observer = DialBackResult(by="p", observed="203.0.113.10", control=True, bulk=None)
    assert conclude([observer], [], None).callable is True


@pytest.mark.parametrize(
    ("own", "peer", "first"),
    [
        (CONE, PUBLIC, "call"),
        (PUBLIC, PUBLIC, "call"),
        (PUBLIC, CONE, "call_back"),
        (PUBLIC, SYMMETRIC, "call_back"),
        (CONE, CONE, "punch"),
        (CONE, SYMMETRIC, "relay"),
        (SYMMETRIC, CONE, "relay"),
        (SYMMETRIC, SYMMETRIC, "relay"),
    ],
)
def test_ways_to_begins_with_the_best_way_that_can_work(
    own: Reachability, peer: Reachability, first: str
) -> None:
    assert ways_to(own, peer, seen_elsewhere=False)[0] == first


def test_ways_to_never_punches_where_a_mapping_differs_and_always_ends_with_the_last_resorts() -> (
    None
):
    for own, peer, elsewhere in itertools.product(EVERY, EVERY, (False, True)):
        ways = ways_to(own, peer, seen_elsewhere=elsewhere)
        assert ways[-2:] == ("relay", "libp2p")
        assert len(set(ways)) == len(ways)
        assert set(ways) <= KIND_OF.keys()
        if "symmetric" in (own.nat, peer.nat):
            assert "punch" not in ways
        if peer.callable is False:
            assert "call" not in ways


def test_ways_to_asks_for_a_call_back_first_where_a_router_is_seen() -> None:
    ways = ways_to(PUBLIC, UNKNOWN_REACHABILITY, seen_elsewhere=True)
    assert ways[:2] == ("call_back", "call")
    assert ways_to(PUBLIC, UNKNOWN_REACHABILITY, seen_elsewhere=False)[0] == "call"


def test_order_relays_prefers_room_then_nearness_and_leaves_full_ones_out() -> None:
    offers = [
        RelayOffer(relay="far", sessions=0, most=64, rtt_s=0.2),
        RelayOffer(relay="busy", sessions=60, most=64, rtt_s=0.001),
        RelayOffer(relay="full", sessions=64, most=64, rtt_s=0.001),
        RelayOffer(relay="near", sessions=1, most=64, rtt_s=0.01),
    ]
    assert order_relays(offers) == ["near", "far", "busy"]


def test_is_private_knows_the_addresses_of_homes_and_providers() -> None:
    assert all(map(is_private, ("192.168.1.10", "10.0.0.1", "100.64.3.4", "127.0.0.1", "fe80::1")))
    assert not any(map(is_private, ("203.0.113.10", "8.8.8.8", "2001:db8::1", "node.example")))


def test_reachability_text_says_what_others_can_do() -> None:
    texts = {reachability_text(reach) for reach in EVERY}
    assert len(texts) == len(EVERY)
    assert "relay" in reachability_text(SYMMETRIC)
