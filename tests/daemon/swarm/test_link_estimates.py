"""LinkEstimates: round trips, coordinates, bandwidth, losses and the health of peers."""

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


def measured(rtt_s: float, times: int = 5) -> LinkEstimates:
    estimates = LinkEstimates("me")
    for _ in range(times):
        estimates.note_links([link("a", rtt_s)])
    return estimates


def test_observations_need_three_samples_and_one_outlier_changes_nothing() -> None:
    estimates = measured(0.05, times=2)
    assert estimates.coordinate is None
    assert estimates.observations(PARENT) == ()
    estimates.note_links([link("a", 0.05)])
    before = estimates.observations(PARENT)
    assert [(observation.who, observation.rtt_us) for observation in before] == [
        (short_name("a"), 50_000)
    ]
    estimates.note_links([link("a", 3.0)])
    assert estimates.observations(PARENT) == before


def test_a_link_without_a_round_trip_has_no_samples() -> None:
    estimates = LinkEstimates("me")
    estimates.note_links([link("a", None)])
    assert estimates.of("a").rtt.samples == ()


def test_coordinates_of_neighbours_lead_to_a_coordinate_of_this_node() -> None:
    estimates = measured(0.1)
    neighbour = Coordinate(x_us=30_000, height_us=5_000, error_ppm=100_000)
    estimates.note_coordinates([("a", neighbour), ("me", Coordinate(x_us=1))])
    for _ in range(60):
        estimates.note_links([link("a", 0.1)])
    assert estimates.coordinate is not None
    assert estimate_us(estimates.coordinate, neighbour) == pytest.approx(100_000, rel=0.05)


def test_a_bandwidth_is_observed_in_transfers_of_enough_bytes_and_round_trips() -> None:
    estimates = measured(0.1)
    # Three round trips are too few.
    estimates.note_uplink("a", 1_000_000, 250_000, 0.3)
    estimates.note_uplink("a", MIN_BYTES - 1, 1000, 5.0)
    assert estimates.of("a").ups == ()
    estimates.note_uplink("a", 1_000_000, 250_000, 1.05)
    estimates.note_downlink("a", 2_000_000, 500_000, 2.1)
    observation = estimates.observations(PARENT)[0]
    assert observation.uplink_bps == pytest.approx(8_000_000, rel=1e-6)
    assert observation.downlink_bps == pytest.approx(8_000_000, rel=1e-6)
    assert not observation.bounded


def test_an_observation_is_bounded_when_the_path_was_the_limit() -> None:
    estimates = measured(0.1)
    estimates.note_links([link("a", 0.1, segments=10_000, retransmits=100)])
    flow = estimates.flow_bits("a")
    estimates.note_uplink("a", 4 * flow // 8, flow // 8, 1.05)
    assert estimates.observations(PARENT)[0].bounded
    # This transfer is slower, but the path has room.
    estimates.note_uplink("a", 2 * flow // 8, flow // 32, 2.05)
    observation = estimates.observations(PARENT)[0]
    assert not observation.bounded
    assert observation.uplink_bps == pytest.approx(flow, rel=1e-3)


def test_a_path_without_losses_yet_counts_as_no_wider_than_the_other_paths() -> None:
    """A path loses 2 of 2,000 packets on average. One that lost none by chance may be the limit."""
    estimates = measured(0.1)
    estimates.note_links(
        [
            link("a", 0.1, segments=2_000, retransmits=0),
            link("b", 0.1, segments=20_000, retransmits=20),
        ]
    )
    carries = product_of(0.001) // 100_000
    estimates.note_uplink("a", 4 * carries // 8, carries // 8, 1.05)
    assert estimates.observations(PARENT)[0].bounded


def test_an_observation_is_bounded_when_our_own_link_was_the_limit() -> None:
    """Where a group receives more than it sends, each uplink looks narrow to the other members."""
    estimates = measured(0.1)
    estimates.note_uplink("a", 1_000_000, 250_000, 1.05, busy=0.97)
    assert estimates.observations(PARENT)[0].bounded
    estimates.note_uplink("a", 900_000, 250_000, 1.05, busy=0.5)
    observation = estimates.observations(PARENT)[0]
    assert not observation.bounded
    assert observation.uplink_bps == pytest.approx(7_200_000, rel=1e-6), (
        "what our link limited counts less"
    )


def test_an_observation_counts_losses_and_scales_those_of_a_long_connection() -> None:
    estimates = measured(0.1)
    estimates.note_links([link("a", 0.1, segments=100, retransmits=1)])
    observation = estimates.observations(PARENT)[0]
    assert (observation.segments, observation.retransmits) == (100, 1), (
        "the counts are passed on although they are too few for an estimate"
    )
    estimates.note_links([link("a", 0.1, segments=10 * MOST_SEGMENTS, retransmits=1000)])
    observation = estimates.observations(PARENT)[0]
    assert (observation.segments, observation.retransmits) == (MOST_SEGMENTS, 100)


def test_losses_limit_a_flow_once_enough_was_sent() -> None:
    estimates = measured(0.1)
    estimates.note_links([link("a", 0.1, segments=100, retransmits=1)])
    assert estimates.of("a").loss is None
    assert estimates.flow_bits("a") == 0
    estimates.note_links([link("a", 0.1, segments=10_000, retransmits=0)])
    assert estimates.flow_bits("a") == 0
    estimates.note_links([link("a", 0.1, segments=10_000, retransmits=100)])
    assert estimates.of("a").loss == pytest.approx(0.01)
    assert estimates.flow_bits("a") == pytest.approx(1.22 * 8 * 1448 / (0.1 * 0.1), rel=1e-3)


def test_a_short_transfer_raises_the_flow_limit_and_gives_no_bandwidth() -> None:
    """A short transfer mostly waits, so it gives no bandwidth. But the path carried its bytes."""
    estimates = measured(1.0)
    estimates.note_links([link("a", 1.0, segments=10_000, retransmits=100)])
    bound = estimates.flow_bits("a")
    # In two round trips, four times as much arrives as the losses allow.
    estimates.note_uplink("a", 4 * bound, bound, 2.0)
    assert estimates.of("a").ups == ()
    assert estimates.flow_bits("a") == pytest.approx(4 * bound, rel=1e-3)
    # This speed is that of buffers, not of the path.
    estimates.note_uplink("a", 4 * bound, bound, 0.1)
    assert estimates.flow_bits("a") == pytest.approx(4 * bound, rel=1e-3)


def test_failed_rounds_of_a_peer_are_remembered_for_some_rounds() -> None:
    estimates = measured(0.1)
    for _ in range(3):
        estimates.note_round(["me", "a"], frozenset({"me"}), 0.0)
    estimates.note_round(["me", "a"], frozenset({"me", "a"}), 0.0)
    observation = estimates.observations(PARENT)[0]
    assert (observation.rounds, observation.failed) == (4, 3)
    for _ in range(30):
        estimates.note_round(["me", "a"], frozenset({"me", "a"}), 0.0)
    assert estimates.observations(PARENT)[0].failed == 0


def test_a_peer_that_fails_most_rounds_is_quarantined_and_then_on_probation() -> None:
    estimates = LinkEstimates("me")
    both, alone = frozenset({"me", "a"}), frozenset({"me"})
    for finished in (both, alone, alone, alone):
        estimates.note_round(["me", "a"], finished, 0.0)
    assert estimates.quarantined(["a", "stranger"], 0.0) == frozenset(), "four rounds are too few"
    estimates.note_round(["me", "a"], alone, 0.0)
    assert estimates.quarantined(["a", "stranger"], 1.0) == {"a"}
    assert "4 of its last 5 rounds failed" in estimates.of("a").health.reason
    assert estimates.quarantined(["a"], QUARANTINE_S + 1) == frozenset()
    assert estimates.of("a").health.name == PROBATION
    for _ in range(SUCCESSES):
        estimates.note_round(["me", "a"], both, QUARANTINE_S + 2)
    assert estimates.of("a").health.name == TRUSTED


def test_many_links_are_measured_in_turn_and_few_are_reported() -> None:
    estimates = LinkEstimates("me")
    links = [link(f"peer {i}", 0.01 * (i + 1)) for i in range(3 * LINKS_PER_LOOK)]
    for _ in range(9):
        estimates.note_links(links)
    assert all(len(estimates.of(one.peer).rtt.samples) == 3 for one in links)
    assert len(estimates.observations(PARENT)) == MAX_OBSERVATIONS
    assert estimates.observations(PARENT) != estimates.observations(b"q" * 32)


def test_a_quality_needs_three_measurements_that_agree() -> None:
    assert measured(0.02, times=2).of("a").quality.name == "unknown"
    quality = measured(0.02, times=3).of("a").quality
    assert quality.name in ("perfect", "good")
    assert "20 ms" in quality.reason
