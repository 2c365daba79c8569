"""The transfer model: fair sharing, and exchanges whose time arithmetic gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from simulator.network.fluid import LinkKind, share_out
from simulator.network.links import NetworkLinks, links_of
from simulator.network.transfer import HANDLING_S, transfer


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_shares_are_max_min_fair(flows: int, links: int, seed: int) -> None:
    """No link carries more than it can, and every flow has its maximum or crosses a full link."""
    rng = np.random.default_rng(seed)
    kinds = tuple(
        LinkKind(which=rng.integers(0, links, flows), bits=rng.uniform(1, 10, links))
        for _ in range(3)
    )
    most = rng.uniform(0.1, 5, flows)
    rates = share_out(most, kinds)
    loads = [np.bincount(kind.which, weights=rates, minlength=links) for kind in kinds]
    for kind, load in zip(kinds, loads, strict=True):
        assert (load <= kind.bits * (1 + 1e-6)).all()
    for i in range(flows):
        full = [
            load[kind.which[i]] >= kind.bits[kind.which[i]] * (1 - 1e-6)
            and rates[i] >= rates[kind.which == kind.which[i]].max() * (1 - 1e-6)
            for kind, load in zip(kinds, loads, strict=True)
        ]
        assert rates[i] >= most[i] * (1 - 1e-6) or any(full)


def even(nodes: int, bits: float, rtt_s: float = 0.0) -> NetworkLinks:
    links = links_of("good", nodes, 1)
    rtt = np.full((nodes, nodes), rtt_s)
    np.fill_diagonal(rtt, 0)
    return replace(
        links,
        uplink_bps=np.full(nodes, bits),
        downlink_bps=np.full(nodes, bits),
        rtt_s=rtt,
        loss=np.full((nodes, nodes), 1e-12),
    )


def test_one_group_takes_the_time_of_arithmetic() -> None:
    """Nine tenths of 40 MB over 10 Mbit/s twice, four one-way trips, and nine messages."""
    went = transfer([list(range(10))], [0.1] * 10, even(10, 10e6, 0.1))
    assert went.seconds == pytest.approx(
        2 * 0.9 * 320e6 / 10e6 + 4 * 0.05 + 2 * 9 * HANDLING_S, rel=1e-3
    )
    assert went.sent_bytes == pytest.approx(10 * 2 * 0.9 * 40e6)


def test_every_layout_moves_twice_the_vector() -> None:
    for groups in ([range(12)], [range(6), range(6, 12)], [range(0, 4), range(4, 8), range(8, 12)]):
        k = len(groups[0])
        went = transfer([list(group) for group in groups], [1 / k] * k, even(12, 10e6))
        assert went.sent_bytes == pytest.approx(12 * 2 * 40e6 * 11 / 12)
        assert went.seconds >= 2 * 11 / 12 * 32


def test_a_slow_path_limits_the_transfer_over_it() -> None:
    links = links_of("regions", 8, 1)
    went = transfer([list(range(8))], [1 / 8] * 8, links)
    away = links.region[:, None] != links.region[None]
    assert went.seconds == pytest.approx(2 * 40e6 / links.flow_bps[away].min(), rel=0.02)


def test_bytes_between_regions_are_counted() -> None:
    links = links_of("regions", 8, 1)
    by_region = np.argsort(links.region, kind="stable").tolist()
    flat = transfer([list(range(8))], [1 / 8] * 8, links).between_bytes
    grouped = transfer(
        [by_region[i : i + 2] for i in range(0, 8, 2)], [0.5, 0.5], links
    ).between_bytes
    assert flat == pytest.approx(8 * 2 * 40e6 * 6 / 8)
    assert grouped == pytest.approx(2 * 4 * 3 / 4 * 40e6)


def test_member_that_owns_nothing_sends_and_receives() -> None:
    """A longer group has members behind the last position."""
    went = transfer([[0, 1], [2, 3, 4]], [0.5, 0.5], even(5, 10e6))
    assert np.isfinite(went.slice_s[4, [2, 3]]).all()
    assert not np.isfinite(went.slice_s[[2, 3], 4]).any()
    assert went.seconds > 2 * 16
