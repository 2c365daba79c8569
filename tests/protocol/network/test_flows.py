"""The rate of a path, from losses that no member could count alone."""

from __future__ import annotations

from math import sqrt
from random import Random

import pytest
from msgspec.structs import replace

from protocol.network.flows import MATHIS_BITS, SECOND_US, Flows, flows_of
from protocol.network.peer_observation import MAX_OBSERVATIONS, PeerObservation, short_name

NAMES = [short_name(f"peer {i}") for i in range(128)]
NEAR, FAR = 15_000, 180_000


def observations(
    loss: float, segments: int, rtt_us: int, seed: int = 1
) -> list[tuple[PeerObservation, ...]]:
    """Return the observations of a swarm on paths of one length, with randomly lost packets."""
    rng = Random(seed)

    def observation(who: bytes) -> PeerObservation:
        again = sum(rng.random() < loss for _ in range(segments))
        return PeerObservation(who=who, rtt_us=rtt_us, segments=segments, retransmits=again)

    return [
        tuple(
            observation(NAMES[(i + step) % len(NAMES)]) for step in range(1, MAX_OBSERVATIONS + 1)
        )
        for i in range(len(NAMES))
    ]


def carried(loss: float, rtt_us: int) -> float:
    return MATHIS_BITS * SECOND_US / sqrt(loss) / rtt_us


@pytest.mark.parametrize("segments", [60, 200, 3000])
def test_all_members_together_determine_a_loss_of_a_thousandth(
    segments: int,
) -> None:
    flows = flows_of(observations(0.001, segments, NEAR), NAMES)
    assert flows.bits(NEAR) == pytest.approx(carried(0.001, NEAR), rel=0.15)


def test_each_path_length_has_its_own_loss() -> None:
    near, far = observations(0.0001, 2000, NEAR), observations(0.005, 200, FAR)
    flows = flows_of([one[:4] + other[4:] for one, other in zip(near, far, strict=True)], NAMES)
    assert flows.bits(NEAR) == pytest.approx(carried(0.0001, NEAR), rel=0.25)
    assert flows.bits(FAR) == pytest.approx(carried(0.005, FAR), rel=0.15)


def test_the_loss_of_few_packets_follows_that_of_all() -> None:
    """Ten packets without a loss are no proof that a path has no bound."""
    reports = observations(0.001, 3000, FAR)
    reports[0] = (PeerObservation(who=NAMES[1], rtt_us=NEAR, segments=10), *reports[0][1:])
    assert flows_of(reports, NAMES).bits(NEAR) == pytest.approx(carried(0.001, NEAR), rel=0.15)


def test_paths_without_losses_have_no_bound() -> None:
    assert flows_of(observations(0.0, 100, NEAR), NAMES) == Flows(octaves=())
    assert flows_of([], NAMES) == Flows(octaves=())


def test_an_observed_rate_raises_the_bound() -> None:
    seen = [
        tuple(replace(one, flow_bits=10**9) for one in each)
        for each in observations(0.001, 200, NEAR)
    ]
    assert flows_of(seen, NAMES).bits(NEAR) == pytest.approx(10**9)


@pytest.mark.parametrize("lie", [0, 1 << 20])
def test_a_few_invented_counts_change_little(lie: int) -> None:
    reports = observations(0.001, 200, NEAR)
    for i in (3, 40, 77):
        reports[i] = tuple(
            replace(one, segments=1 << 20, retransmits=lie, flow_bits=lie) for one in reports[i]
        )
    assert flows_of(reports, NAMES).bits(NEAR) == pytest.approx(carried(0.001, NEAR), rel=0.2)


def test_observations_of_strangers_do_not_count() -> None:
    reports = observations(0.5, 200, NEAR)
    assert flows_of(reports, ()) == Flows(octaves=())
