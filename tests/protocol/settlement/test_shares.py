"""The largest remainder method, for any pool and weights."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.settlement.shares import share_pool

NAMES = st.binary(min_size=20, max_size=20)
WEIGHTS = st.dictionaries(NAMES, st.integers(0, 1 << 62), max_size=12)


@given(pool=st.integers(0, 10**30), weights=WEIGHTS)
def test_the_whole_pool_is_divided_and_every_share_is_off_by_less_than_a_unit(
    pool: int, weights: dict[bytes, int]
) -> None:
    shares = share_pool(pool, weights)
    whole = sum(weights.values())
    assert sum(shares.values()) == (pool if whole else 0)
    for name, amount in shares.items():
        assert abs(amount - Fraction(pool * weights[name], whole)) < 1


def test_units_left_over_go_to_the_largest_remainders_and_then_by_name() -> None:
    assert share_pool(10, {b"b": 1, b"a": 1, b"c": 1}) == {b"a": 4, b"b": 3, b"c": 3}
    assert share_pool(10, {b"a": 6, b"b": 5, b"c": 5}) == {b"a": 4, b"b": 3, b"c": 3}
    assert share_pool(1, {b"a": 1, b"b": 2}) == {b"a": 0, b"b": 1}


def test_negative_pools_and_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="below 0"):
        share_pool(-1, {b"a": 1})
    with pytest.raises(ValueError, match="below 0"):
        share_pool(1, {b"a": -1})
