"""The link model is what its documentation states."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.fakes.link_profiles import QUALITIES
from simulator.network.links import BETWEEN_S, PROFILES, links_of


@pytest.mark.parametrize("seed", [1, 2])
def test_regions_are_four_and_equal(seed: int) -> None:
    links = links_of("regions", 128, seed)
    same = links.region[:, None] == links.region[None]
    away = ~np.eye(128, dtype=bool)
    assert np.bincount(links.region).tolist() == [32] * 4
    assert set(links.uplink_bps) == {20e6}
    assert set(links.downlink_bps) == {100e6}
    assert set(links.rtt_s[same & away]) == {0.015}
    assert BETWEEN_S[0] <= links.rtt_s[~same].min()
    assert links.rtt_s[~same].max() <= BETWEEN_S[1]
    assert (links.rtt_s == links.rtt_s.T).all()
    assert len(set(links.rtt_s[~same])) == 6, "one for each pair of regions"
    # 1.22 x 1460 bytes / (15 ms x 1%) and / (RTT x 7.07%)
    assert links.flow_bps[same & away] == pytest.approx(94.997e6, rel=1e-3)
    assert links.flow_bps[~same] == pytest.approx(201_520 / links.rtt_s[~same], rel=1e-3)
    assert links.between_bps[0].tolist() == [np.inf, 1e9, 1e9, 1e9]


@pytest.mark.parametrize("profile", QUALITIES)
def test_qualities_are_those_of_the_table(profile: str) -> None:
    links, quality = links_of(profile, 64, 3), QUALITIES[profile]
    away = ~np.eye(64, dtype=bool)
    assert quality.round_trip_s[0] <= links.rtt_s[away].min()
    assert links.rtt_s[away].max() <= quality.round_trip_s[1]
    assert links.rtt_s[away].std() > 0.1 * (quality.round_trip_s[1] - quality.round_trip_s[0])
    assert (links.loss == quality.loss).all()
    assert (links.uplink_bps == np.minimum(quality.rate_bps, 10e9)).all()


def test_a_seed_is_a_network() -> None:
    for profile in PROFILES:
        one, same, other = (links_of(profile, 32, seed).rtt_s for seed in (1, 1, 2))
        assert (one == same).all()
        assert (one != other).any()


def test_slowed_paths_are_those_of_the_slowed_nodes() -> None:
    links = links_of("good", 6, 1)
    slow = np.arange(6) < 2
    after = links.slowed(slow, 10.0).rtt_s / np.where(links.rtt_s > 0, links.rtt_s, 1)
    assert after[0, 5] == after[5, 0] == after[0, 1] == pytest.approx(10)
    assert after[3, 4] == pytest.approx(1)
