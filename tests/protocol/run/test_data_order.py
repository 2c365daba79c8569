"""The data order is a permutation in every pass, and lanes share nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.ports.trainer import Lane
from protocol.run.data_order import lane_positions, sample_indices

SEEDS = st.integers(0, (1 << 63) - 1)


@given(SEEDS, st.integers(1, 3000), st.integers(0, 50))
def test_every_pass_is_a_bijection(seed: int, size: int, number: int) -> None:
    positions = np.arange(size, dtype=np.int64) + number * size
    assert np.array_equal(np.sort(sample_indices(seed, size, positions)), np.arange(size))


@given(SEEDS, st.integers(1, 500), st.integers(1, 9), st.integers(0, 10_000))
def test_lanes_are_disjoint_within_a_pass(seed: int, size: int, stride: int, base: int) -> None:
    """All lanes of a pass together draw each sample exactly once."""
    # Begin at the beginning of a pass.
    base -= base % size
    drawn: list[int] = []
    for index in range(stride):
        count = len(range(index, size, stride))
        drawn += sample_indices(
            seed, size, lane_positions(Lane(base=base, index=index, stride=stride), 0, count)
        ).tolist()
    assert sorted(drawn) == list(range(size))


@given(SEEDS, st.integers(1, 1 << 40), st.lists(st.integers(0, (1 << 62)), max_size=40))
def test_a_draw_depends_on_its_position_alone(seed: int, size: int, places: list[int]) -> None:
    positions = np.array(places, dtype=np.int64)
    together = sample_indices(seed, size, positions)
    assert ((together >= 0) & (together < size)).all()
    alone = [int(sample_indices(seed, size, positions[i : i + 1])[0]) for i in range(len(places))]
    assert together.tolist() == alone


def test_golden() -> None:
    """Part of the protocol: a change would let two versions draw the same samples."""
    assert sample_indices(3, 10, np.arange(20, dtype=np.int64)).tolist() == [
        2,
        8,
        6,
        9,
        3,
        5,
        0,
        7,
        4,
        1,
        1,
        6,
        7,
        5,
        4,
        8,
        9,
        3,
        0,
        2,
    ]


def test_passes_and_seeds_differ_and_look_shuffled() -> None:
    size = 10_000
    one = sample_indices(1, size, np.arange(size, dtype=np.int64))
    two = sample_indices(1, size, np.arange(size, 2 * size, dtype=np.int64))
    other = sample_indices(2, size, np.arange(size, dtype=np.int64))
    for left, right in ((one, two), (one, other), (one, np.arange(size))):
        # One match is expected by chance.
        assert (left == right).sum() < 20
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.05


def test_lanes_continue() -> None:
    lane = Lane(base=100, index=2, stride=4)
    assert lane_positions(lane, 0, 3).tolist() == [102, 106, 110]
    assert lane_positions(lane, 3, 2).tolist() == [114, 118]


@pytest.mark.parametrize(
    "lane",
    [
        Lane(base=-1, index=0, stride=1),
        Lane(base=0, index=0, stride=0),
        Lane(base=(1 << 63) - 2, index=0, stride=9),
    ],
)
def test_impossible_lanes_are_refused(lane: Lane) -> None:
    with pytest.raises(ValueError, match="positions"):
        lane_positions(lane, 0, 3)
