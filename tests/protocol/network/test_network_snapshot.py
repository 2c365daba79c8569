"""What a plan concludes: the observations of others, whatever a member claims."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from msgspec.structs import replace

from protocol.messages.offer import Ready
from protocol.network.coordinate import Coordinate, estimate_us
from protocol.network.flows import Flows
from protocol.network.network_snapshot import NetworkSnapshot, snapshot_of
from protocol.network.peer_observation import MAX_OBSERVATIONS, PeerObservation, choose, short_name
from tests.protocol.network.towns import Town, offers


def liar(town: Town, i: int, **changes: object) -> NetworkSnapshot:
    """Return the snapshot when member `i` makes other claims about itself."""
    reports = offers(town)
    reports[i] = (reports[i][0], replace(reports[i][1], **changes))
    return snapshot_of(reports)


def test_links_are_what_others_observed() -> None:
    town = Town(24)
    view = snapshot_of(offers(town))
    assert view.measured
    for i, member in enumerate(view.members):
        assert member.uplink_bps == pytest.approx(town.up[i], rel=0.1)
        assert member.downlink_bps == pytest.approx(town.down[i], rel=0.1)
        assert member.at == town.places[i]


@pytest.mark.parametrize("claim", [0, 1, 10**12])
def test_a_lie_about_bandwidth_changes_nothing(claim: int) -> None:
    town = Town(24)
    assert liar(town, 5, uplink_bps=claim, downlink_bps=claim) == snapshot_of(offers(town))


def test_an_unobserved_claim_counts_for_at_most_the_median() -> None:
    town = Town(24)
    reports = [
        (
            peer,
            replace(
                ready,
                observations=tuple(
                    s for s in ready.observations if s.who != short_name(town.peers[5])
                ),
            ),
        )
        for peer, ready in offers(town)
    ]
    reports[5] = (reports[5][0], replace(reports[5][1], uplink_bps=10**12))
    concluded = [member.uplink_bps for member in snapshot_of(reports).members]
    assert concluded[5] == sorted(concluded[:5] + concluded[6:])[(len(concluded) - 2) // 2]


def test_a_false_coordinate_changes_little() -> None:
    """The member's place is the one that its observers measured."""
    town = Town(24)
    # Member 23 is in the other town.
    elsewhere = town.places[23]
    for claim in (
        elsewhere,
        Coordinate(),
        Coordinate(x_us=10_000_000),
        replace(town.places[5], height_us=3_000_000),
    ):
        concluded = liar(town, 5, coordinate=claim).members[5].at
        assert concluded is not None
        for j in range(24):
            if j != 5:
                true = town.rtt_us(5, j)
                assert abs(estimate_us(concluded, town.places[j]) - true) < max(
                    0.5 * true, 20_000
                ), (claim, j)


def test_one_false_observation_is_one_of_several() -> None:
    """Member 0 reports that all others are slow, far and failing; the median counts."""
    town = Town(24)
    reports = offers(town)
    slander = tuple(
        PeerObservation(
            who=short_name(peer),
            rtt_us=5_000_000,
            uplink_bps=1,
            downlink_bps=1,
            flow_bits=1,
            rounds=16,
            failed=16,
        )
        for peer in town.peers[1 : 1 + MAX_OBSERVATIONS]
    )
    reports[0] = (reports[0][0], replace(reports[0][1], observations=slander))
    honest, slandered = snapshot_of(offers(town)), snapshot_of(reports)
    for before, after, place in zip(honest.members, slandered.members, town.places, strict=True):
        assert after.uplink_bps == pytest.approx(before.uplink_bps, rel=0.1)
        assert after.at == place


def test_a_repeated_observation_counts_once() -> None:
    town = Town(8)
    reports = offers(town)
    louder = [
        (
            peer,
            replace(
                ready, observations=(ready.observations + ready.observations)[:MAX_OBSERVATIONS]
            ),
        )
        for peer, ready in reports
    ]
    assert [m.uplink_bps for m in snapshot_of(louder).members] == [
        m.uplink_bps for m in snapshot_of(reports).members
    ]


def test_an_observation_of_oneself_does_not_count() -> None:
    town = Town(8)
    reports = offers(town)
    boast = PeerObservation(
        who=short_name(town.peers[2]), rtt_us=1, uplink_bps=10**12, downlink_bps=10**12
    )
    reports[2] = (
        reports[2][0],
        replace(reports[2][1], observations=(boast, *reports[2][1].observations[:4])),
    )
    assert (
        snapshot_of(reports).members[2].uplink_bps
        == snapshot_of(offers(town)).members[2].uplink_bps
    )


def test_without_observations_nothing_is_measured_and_claims_count() -> None:
    town = Town(8)
    reports = [
        (peer, replace(ready, observations=(), uplink_bps=1000 + i))
        for i, (peer, ready) in enumerate(offers(town))
    ]
    view = snapshot_of(reports)
    assert not view.measured
    assert [member.uplink_bps for member in view.members] == [1000 + i for i in range(8)]


def test_flows_are_bounded_by_their_length() -> None:
    flows = Flows(octaves=((14, 15_000 * 95_000_000), (18, 170_000 * 1_180_000)))
    assert flows.bits(15_000) == pytest.approx(95e6)
    assert flows.bits(220_000) == pytest.approx(0.912e6, rel=0.01)
    assert Flows(octaves=()).bits(15_000) == float("inf")


def test_failures_are_counted_over_all() -> None:
    town = Town(8)
    reports = [
        (
            peer,
            replace(
                ready,
                observations=tuple(replace(s, rounds=10, failed=1) for s in ready.observations),
            ),
        )
        for peer, ready in offers(town)
    ]
    assert snapshot_of(reports).failure_rate == pytest.approx(0.1)


def test_observations_are_few_and_cover_nearly_every_node_several_times() -> None:
    town = Town(40)
    seen: dict[bytes, int] = {}
    for peer in town.peers:
        all_ = [
            (other, PeerObservation(who=short_name(other), rtt_us=1))
            for other in town.peers
            if other != peer
        ]
        Random(1).shuffle(all_)
        chosen = choose(peer, all_, b"parent" * 6)
        assert len(chosen) == MAX_OBSERVATIONS
        assert chosen == choose(peer, reversed(all_), b"parent" * 6)
        for observation in chosen:
            seen[observation.who] = seen.get(observation.who, 0) + 1
    assert len(seen) == 40
    assert sorted(seen.values())[4] >= 3, (
        "three or more observe nine of ten members, and the next round draws again"
    )


def test_a_ready_with_observations_is_small() -> None:
    town = Town(24)
    ready: Ready = offers(town)[0][1]
    assert len(msgspec.msgpack.encode(ready)) < 800
