"""What a node makes of the others: windows, places, links seen at work, and who was there to the
end.
"""

from __future__ import annotations

import pytest

from daemon.swarm.link_estimates import LEAST_BYTES, LOOKED_AT, LinkEstimates
from protocol.network.coordinate import Coordinate, estimate_us
from protocol.network.flows import product_of
from protocol.network.peer_health import PROBATION, QUARANTINE_S, SUCCESSES, TRUSTED
from protocol.network.peer_observation import MAX_OBSERVATIONS, MOST_SEGMENTS, short_name
from protocol.ports.network import Link

PARENT = b"p" * 32


def link(peer: str, rtt_s: float | None, **more: int) -> Link:
    return Link(peer=peer, path="direct", address="", rtt_s=rtt_s, since_s=0.0, **more)


def looked(rtt_s: float, times: int = 5) -> LinkEstimates:
    neighbours = LinkEstimates("me")
    for _ in range(times):
        neighbours.linked([link("a", rtt_s)])
    return neighbours


def test_nothing_is_said_before_it_is_settled_and_one_bad_sample_changes_nothing() -> None:
    neighbours = looked(0.05, times=2)
    assert neighbours.coordinate is None
    assert neighbours.sights(PARENT) == ()
    neighbours.linked([link("a", 0.05)])
    before = neighbours.sights(PARENT)
    assert [(sight.who, sight.rtt_us) for sight in before] == [(short_name("a"), 50_000)]
    neighbours.linked([link("a", 3.0)])
    assert neighbours.sights(PARENT) == before


def test_a_link_without_a_round_trip_is_no_neighbour() -> None:
    neighbours = LinkEstimates("me")
    neighbours.linked([link("a", None)])
    assert neighbours.of("a").rtt.samples == ()


def test_places_lead_to_a_place_of_ones_own() -> None:
    neighbours = looked(0.1)
    there = Coordinate(x_us=30_000, height_us=5_000, error_ppm=100_000)
    neighbours.placed([("a", there), ("me", Coordinate(x_us=1))])
    for _ in range(60):
        neighbours.linked([link("a", 0.1)])
    assert neighbours.coordinate is not None
    assert estimate_us(neighbours.coordinate, there) == pytest.approx(100_000, rel=0.05)


def test_a_links_bandwidth_is_told_by_whoever_saw_it_at_work_for_long_enough() -> None:
    neighbours = looked(0.1)
    neighbours.sent_us("a", 1_000_000, 250_000, 0.3)  # three round trips
    neighbours.sent_us("a", LEAST_BYTES - 1, 1000, 5.0)
    assert neighbours.of("a").ups == ()
    neighbours.sent_us("a", 1_000_000, 250_000, 1.05)
    neighbours.took("a", 2_000_000, 500_000, 2.1)
    sight = neighbours.sights(PARENT)[0]
    assert sight.uplink_bps == pytest.approx(8_000_000, rel=1e-6)
    assert sight.downlink_bps == pytest.approx(8_000_000, rel=1e-6)
    assert not sight.bounded


def test_a_sight_says_when_the_path_was_the_bound() -> None:
    neighbours = looked(0.1)
    neighbours.linked([link("a", 0.1, segments=10_000, retransmits=100)])
    flow = neighbours.flow_bits("a")
    neighbours.sent_us("a", 4 * flow // 8, flow // 8, 1.05)
    assert neighbours.sights(PARENT)[0].bounded
    neighbours.sent_us("a", 2 * flow // 8, flow // 32, 2.05)  # slower, but on a path with room
    sight = neighbours.sights(PARENT)[0]
    assert not sight.bounded
    assert sight.uplink_bps == pytest.approx(flow, rel=1e-3)


def test_a_path_that_lost_nothing_yet_is_not_taken_for_wider_than_the_others() -> None:
    """Two packets of two thousand are lost on average; that none was is no reason to call what the
    path bounded a narrow link.
    """
    neighbours = looked(0.1)
    neighbours.linked(
        [
            link("a", 0.1, segments=2_000, retransmits=0),
            link("b", 0.1, segments=20_000, retransmits=20),
        ]
    )
    carries = product_of(0.001) // 100_000
    neighbours.sent_us("a", 4 * carries // 8, carries // 8, 1.05)
    assert neighbours.sights(PARENT)[0].bounded


def test_a_sight_says_when_our_own_link_was_the_bound() -> None:
    """In a row with more to take than to give, everybody's uplink looks narrow to everybody."""
    neighbours = looked(0.1)
    neighbours.sent_us("a", 1_000_000, 250_000, 1.05, busy=0.97)
    assert neighbours.sights(PARENT)[0].bounded
    neighbours.sent_us("a", 900_000, 250_000, 1.05, busy=0.5)
    sight = neighbours.sights(PARENT)[0]
    assert not sight.bounded
    assert sight.uplink_bps == pytest.approx(7_200_000, rel=1e-6), (
        "what our link bounded goes behind"
    )


def test_a_sight_counts_losses_and_a_long_connections_in_proportion() -> None:
    neighbours = looked(0.1)
    neighbours.linked([link("a", 0.1, segments=100, retransmits=1)])
    sight = neighbours.sights(PARENT)[0]
    assert (sight.segments, sight.retransmits) == (100, 1), (
        "too few to say anything of this path alone"
    )
    neighbours.linked([link("a", 0.1, segments=10 * MOST_SEGMENTS, retransmits=1000)])
    sight = neighbours.sights(PARENT)[0]
    assert (sight.segments, sight.retransmits) == (MOST_SEGMENTS, 100)


def test_losses_bound_a_flow_once_enough_was_sent() -> None:
    neighbours = looked(0.1)
    neighbours.linked([link("a", 0.1, segments=100, retransmits=1)])
    assert neighbours.of("a").loss is None
    assert neighbours.flow_bits("a") == 0
    neighbours.linked([link("a", 0.1, segments=10_000, retransmits=0)])
    assert neighbours.flow_bits("a") == 0
    neighbours.linked([link("a", 0.1, segments=10_000, retransmits=100)])
    assert neighbours.of("a").loss == pytest.approx(0.01)
    assert neighbours.flow_bits("a") == pytest.approx(1.22 * 8 * 1448 / (0.1 * 0.1), rel=1e-3)


def test_what_a_path_carried_in_a_few_round_trips_it_carries() -> None:
    """Such a transfer is mostly waiting and says nothing of a link; that the path is narrower than
    what came over it, nobody may conclude.
    """
    neighbours = looked(1.0)
    neighbours.linked([link("a", 1.0, segments=10_000, retransmits=100)])
    bound = neighbours.flow_bits("a")
    # In two round trips four times what the losses allow.
    neighbours.sent_us("a", 4 * bound, bound, 2.0)
    assert neighbours.of("a").ups == ()
    assert neighbours.flow_bits("a") == pytest.approx(4 * bound, rel=1e-3)
    neighbours.sent_us("a", 4 * bound, bound, 0.1)  # of buffers, not of the path
    assert neighbours.flow_bits("a") == pytest.approx(4 * bound, rel=1e-3)


def test_who_was_not_there_to_the_end_is_remembered_for_some_rounds() -> None:
    neighbours = looked(0.1)
    for _ in range(3):
        neighbours.together(["me", "a"], frozenset({"me"}), 0.0)
    neighbours.together(["me", "a"], frozenset({"me", "a"}), 0.0)
    sight = neighbours.sights(PARENT)[0]
    assert (sight.rounds, sight.failed) == (4, 3)
    for _ in range(30):
        neighbours.together(["me", "a"], frozenset({"me", "a"}), 0.0)
    assert neighbours.sights(PARENT)[0].failed == 0


def test_whoever_fails_most_rounds_with_us_is_in_quarantine_and_then_on_probation() -> None:
    neighbours = LinkEstimates("me")
    both, alone = frozenset({"me", "a"}), frozenset({"me"})
    for there in (both, alone, alone, alone):
        neighbours.together(["me", "a"], there, 0.0)
    assert neighbours.avoided(["a", "stranger"], 0.0) == frozenset(), "four rounds say too little"
    neighbours.together(["me", "a"], alone, 0.0)
    assert neighbours.avoided(["a", "stranger"], 1.0) == {"a"}
    assert "4 of its last 5 rounds failed" in neighbours.of("a").standing.reason
    assert neighbours.avoided(["a"], QUARANTINE_S + 1) == frozenset()
    assert neighbours.of("a").standing.name == PROBATION
    for _ in range(SUCCESSES):
        neighbours.together(["me", "a"], both, QUARANTINE_S + 2)
    assert neighbours.of("a").standing.name == TRUSTED


def test_among_many_links_all_have_their_turn_and_few_are_told_of() -> None:
    neighbours = LinkEstimates("me")
    links = [link(f"peer {i}", 0.01 * (i + 1)) for i in range(3 * LOOKED_AT)]
    for _ in range(9):
        neighbours.linked(links)
    assert all(len(neighbours.of(one.peer).rtt.samples) == 3 for one in links)
    assert len(neighbours.sights(PARENT)) == MAX_OBSERVATIONS
    assert neighbours.sights(PARENT) != neighbours.sights(b"q" * 32)


def test_a_quality_is_taken_when_three_measurements_agree() -> None:
    assert looked(0.02, times=2).of("a").quality.name == "unknown"
    quality = looked(0.02, times=3).of("a").quality
    assert quality.name in ("perfect", "good")
    assert "20 ms" in quality.reason
