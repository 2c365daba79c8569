"""What a node makes of the others: windows, places, links seen at work, and who was there to the
end.
"""

from __future__ import annotations

import pytest

from daemon.swarm.link_estimate import MIN_BYTES
from daemon.swarm.link_estimates import LINKS_PER_LOOK, LinkEstimates
from protocol.network.coordinate import Coordinate, estimate_us
from protocol.network.flows import product_of
from protocol.network.peer_health import PROBATION, QUARANTINE_S, SUCCESSES, TRUSTED
from protocol.network.peer_observation import MAX_OBSERVATIONS, MOST_SEGMENTS, short_name
from protocol.ports.network import Link

PARENT = b"p" * 32


def link(peer: str, rtt_s: float | None, **more: int) -> Link:
    return Link(peer=peer, path="direct", address="", rtt_s=rtt_s, since_s=0.0, **more)


def looked(rtt_s: float, times: int = 5) -> LinkEstimates:
    estimates = LinkEstimates("me")
    for _ in range(times):
        estimates.note_links([link("a", rtt_s)])
    return estimates


def test_nothing_is_said_before_it_is_settled_and_one_bad_sample_changes_nothing() -> None:
    estimates = looked(0.05, times=2)
    assert estimates.coordinate is None
    assert estimates.observations(PARENT) == ()
    estimates.note_links([link("a", 0.05)])
    before = estimates.observations(PARENT)
    assert [(sight.who, sight.rtt_us) for sight in before] == [(short_name("a"), 50_000)]
    estimates.note_links([link("a", 3.0)])
    assert estimates.observations(PARENT) == before


def test_a_link_without_a_round_trip_is_no_neighbour() -> None:
    estimates = LinkEstimates("me")
    estimates.note_links([link("a", None)])
    assert estimates.of("a").rtt.samples == ()


def test_places_lead_to_a_place_of_ones_own() -> None:
    estimates = looked(0.1)
    there = Coordinate(x_us=30_000, height_us=5_000, error_ppm=100_000)
    estimates.note_coordinates([("a", there), ("me", Coordinate(x_us=1))])
    for _ in range(60):
        estimates.note_links([link("a", 0.1)])
    assert estimates.coordinate is not None
    assert estimate_us(estimates.coordinate, there) == pytest.approx(100_000, rel=0.05)


def test_a_links_bandwidth_is_told_by_whoever_saw_it_at_work_for_long_enough() -> None:
    estimates = looked(0.1)
    estimates.note_uplink("a", 1_000_000, 250_000, 0.3)  # three round trips
    estimates.note_uplink("a", MIN_BYTES - 1, 1000, 5.0)
    assert estimates.of("a").ups == ()
    estimates.note_uplink("a", 1_000_000, 250_000, 1.05)
    estimates.note_downlink("a", 2_000_000, 500_000, 2.1)
    sight = estimates.observations(PARENT)[0]
    assert sight.uplink_bps == pytest.approx(8_000_000, rel=1e-6)
    assert sight.downlink_bps == pytest.approx(8_000_000, rel=1e-6)
    assert not sight.bounded


def test_a_sight_says_when_the_path_was_the_bound() -> None:
    estimates = looked(0.1)
    estimates.note_links([link("a", 0.1, segments=10_000, retransmits=100)])
    flow = estimates.flow_bits("a")
    estimates.note_uplink("a", 4 * flow // 8, flow // 8, 1.05)
    assert estimates.observations(PARENT)[0].bounded
    estimates.note_uplink("a", 2 * flow // 8, flow // 32, 2.05)  # slower, but on a path with room
    sight = estimates.observations(PARENT)[0]
    assert not sight.bounded
    assert sight.uplink_bps == pytest.approx(flow, rel=1e-3)


def test_a_path_that_lost_nothing_yet_is_not_taken_for_wider_than_the_others() -> None:
    """Two packets of two thousand are lost on average; that none was is no reason to call what the
    path bounded a narrow link.
    """
    estimates = looked(0.1)
    estimates.note_links(
        [
            link("a", 0.1, segments=2_000, retransmits=0),
            link("b", 0.1, segments=20_000, retransmits=20),
        ]
    )
    carries = product_of(0.001) // 100_000
    estimates.note_uplink("a", 4 * carries // 8, carries // 8, 1.05)
    assert estimates.observations(PARENT)[0].bounded


def test_a_sight_says_when_our_own_link_was_the_bound() -> None:
    """In a row with more to take than to give, everybody's uplink looks narrow to everybody."""
    estimates = looked(0.1)
    estimates.note_uplink("a", 1_000_000, 250_000, 1.05, busy=0.97)
    assert estimates.observations(PARENT)[0].bounded
    estimates.note_uplink("a", 900_000, 250_000, 1.05, busy=0.5)
    sight = estimates.observations(PARENT)[0]
    assert not sight.bounded
    assert sight.uplink_bps == pytest.approx(7_200_000, rel=1e-6), (
        "what our link bounded goes behind"
    )


def test_a_sight_counts_losses_and_a_long_connections_in_proportion() -> None:
    estimates = looked(0.1)
    estimates.note_links([link("a", 0.1, segments=100, retransmits=1)])
    sight = estimates.observations(PARENT)[0]
    assert (sight.segments, sight.retransmits) == (100, 1), (
        "too few to say anything of this path alone"
    )
    estimates.note_links([link("a", 0.1, segments=10 * MOST_SEGMENTS, retransmits=1000)])
    sight = estimates.observations(PARENT)[0]
    assert (sight.segments, sight.retransmits) == (MOST_SEGMENTS, 100)


def test_losses_bound_a_flow_once_enough_was_sent() -> None:
    estimates = looked(0.1)
    estimates.note_links([link("a", 0.1, segments=100, retransmits=1)])
    assert estimates.of("a").loss is None
    assert estimates.flow_bits("a") == 0
    estimates.note_links([link("a", 0.1, segments=10_000, retransmits=0)])
    assert estimates.flow_bits("a") == 0
    estimates.note_links([link("a", 0.1, segments=10_000, retransmits=100)])
    assert estimates.of("a").loss == pytest.approx(0.01)
    assert estimates.flow_bits("a") == pytest.approx(1.22 * 8 * 1448 / (0.1 * 0.1), rel=1e-3)


def test_what_a_path_carried_in_a_few_round_trips_it_carries() -> None:
    """Such a transfer is mostly waiting and says nothing of a link; that the path is narrower than
    what came over it, nobody may conclude.
    """
    estimates = looked(1.0)
    estimates.note_links([link("a", 1.0, segments=10_000, retransmits=100)])
    bound = estimates.flow_bits("a")
    # In two round trips four times what the losses allow.
    estimates.note_uplink("a", 4 * bound, bound, 2.0)
    assert estimates.of("a").ups == ()
    assert estimates.flow_bits("a") == pytest.approx(4 * bound, rel=1e-3)
    estimates.note_uplink("a", 4 * bound, bound, 0.1)  # of buffers, not of the path
    assert estimates.flow_bits("a") == pytest.approx(4 * bound, rel=1e-3)


def test_who_was_not_there_to_the_end_is_remembered_for_some_rounds() -> None:
    estimates = looked(0.1)
    for _ in range(3):
        estimates.note_round(["me", "a"], frozenset({"me"}), 0.0)
    estimates.note_round(["me", "a"], frozenset({"me", "a"}), 0.0)
    sight = estimates.observations(PARENT)[0]
    assert (sight.rounds, sight.failed) == (4, 3)
    for _ in range(30):
        estimates.note_round(["me", "a"], frozenset({"me", "a"}), 0.0)
    assert estimates.observations(PARENT)[0].failed == 0


def test_a_peer_that_fails_most_rounds_is_quarantined_and_then_on_probation() -> None:
    estimates = LinkEstimates("me")
    both, alone = frozenset({"me", "a"}), frozenset({"me"})
    for there in (both, alone, alone, alone):
        estimates.note_round(["me", "a"], there, 0.0)
    assert estimates.quarantined(["a", "stranger"], 0.0) == frozenset(), (
        "four rounds say too little"
    )
    estimates.note_round(["me", "a"], alone, 0.0)
    assert estimates.quarantined(["a", "stranger"], 1.0) == {"a"}
    assert "4 of its last 5 rounds failed" in estimates.of("a").health.reason
    assert estimates.quarantined(["a"], QUARANTINE_S + 1) == frozenset()
    assert estimates.of("a").health.name == PROBATION
    for _ in range(SUCCESSES):
        estimates.note_round(["me", "a"], both, QUARANTINE_S + 2)
    assert estimates.of("a").health.name == TRUSTED


def test_among_many_links_all_have_their_turn_and_few_are_told_of() -> None:
    estimates = LinkEstimates("me")
    links = [link(f"peer {i}", 0.01 * (i + 1)) for i in range(3 * LINKS_PER_LOOK)]
    for _ in range(9):
        estimates.note_links(links)
    assert all(len(estimates.of(one.peer).rtt.samples) == 3 for one in links)
    assert len(estimates.observations(PARENT)) == MAX_OBSERVATIONS
    assert estimates.observations(PARENT) != estimates.observations(b"q" * 32)


def test_a_quality_is_taken_when_three_measurements_agree() -> None:
    assert looked(0.02, times=2).of("a").quality.name == "unknown"
    quality = looked(0.02, times=3).of("a").quality
    assert quality.name in ("perfect", "good")
    assert "20 ms" in quality.reason
