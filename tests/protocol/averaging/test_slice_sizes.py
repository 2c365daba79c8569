"""Slices sized by bandwidth: never worse than equal slices, as good as an exhaustive search."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.averaging.slice_sizes import LEAST_SHARE, best_shares, round_time

MBIT = 1_000_000
links = st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 1000)), min_size=2, max_size=12)


@given(links)
def test_shares_divide_the_vector_and_are_never_worse_than_equal_ones(
    given_links: list[tuple[int, int]],
) -> None:
    ups, downs = ([link[i] * MBIT for link in given_links] for i in (0, 1))
    shares = best_shares(ups, downs)
    assert all(share >= 0 for share in shares)
    assert sum(shares) == pytest.approx(1.0, abs=1e-9)
    equal = [1 / len(ups)] * len(ups)
    assert round_time(shares, ups, downs) <= round_time(equal, ups, downs) * (1 + 1e-9)


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from([5, 20, 50, 100]), st.sampled_from([20, 100, 300])),
        min_size=3,
        max_size=4,
    )
)
def test_no_split_of_a_grid_is_better(given_links: list[tuple[int, int]]) -> None:
    ups, downs = ([link[i] * MBIT for link in given_links] for i in (0, 1))
    steps = 16
    grid = (
        split
        for split in itertools.product(range(steps + 1), repeat=len(ups))
        if sum(split) == steps
    )
    best = min(round_time([part / steps for part in split], ups, downs) for split in grid)
    assert round_time(best_shares(ups, downs), ups, downs) <= best * (1 + 1e-6)


def test_a_slow_uplink_reduces_less_and_the_round_is_shorter() -> None:
    ups, downs = [20 * MBIT, *[100 * MBIT] * 3], [100 * MBIT] * 4
    shares = best_shares(ups, downs)
    assert shares[0] < 0.1
    assert round_time(shares, ups, downs) < 0.8 * round_time([0.25] * 4, ups, downs)


def test_members_that_do_not_bound_the_round_own_equal_slices() -> None:
    """One slow link bounds the round, so a faster link does not get a larger slice.

    A larger slice would take longer on a long path.
    """
    ups, downs = [20 * MBIT, *[100 * MBIT] * 5, *[150 * MBIT] * 6], [100 * MBIT] * 12
    slow, *others = best_shares(ups, downs)
    assert slow < 1 / 12
    assert others == pytest.approx([(1 - slow) / 11] * 11)


def test_links_that_are_as_fast_up_as_down_get_equal_slices() -> None:
    # hivemind's reference case. A round with an inclusion between scatter and gather waits twice
    # for hivemind's own split, 0 : 255 : 769.
    bits = [3 * MBIT, 5 * MBIT, 9 * MBIT]
    assert round_time(best_shares(bits, bits), bits, bits) <= round_time(
        [0, 255 / 1024, 769 / 1024], bits, bits
    )


def test_unmeasured_links_get_equal_slices() -> None:
    assert best_shares([0] * 5, [0] * 5) == [0.2] * 5


def test_no_claim_counts_for_more_than_a_bounded_multiple_of_the_median() -> None:
    honest = [50 * MBIT] * 7
    downs = [50 * MBIT] * 8
    claims = (10**9, 10**12, 10**18)
    shares = [best_shares([int(50 * MBIT / LEAST_SHARE), *honest], downs)] + [
        best_shares([claim, *honest], downs) for claim in claims
    ]
    assert shares[1] == pytest.approx(best_shares([10**9, *honest], downs))
    assert shares[2] == pytest.approx(shares[0])
    assert shares[3] == pytest.approx(shares[0])
