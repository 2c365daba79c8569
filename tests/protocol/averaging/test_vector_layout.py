"""The division of the vector: each chunk has one owner, in proportion to the shares."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.averaging.vector_layout import (
    CHUNK_ELEMENTS,
    STATE_CHUNK_BYTES,
    chunk_count,
    element_range,
    share_out,
)

SHARES = st.lists(
    st.floats(0, 1e12) | st.integers(0, 10**9).map(float), min_size=1, max_size=64
).filter(lambda shares: sum(shares) > 1e-9)


@given(st.integers(0, 1 << 20), SHARES)
def test_every_chunk_once_and_in_proportion(chunks: int, shares: list[float]) -> None:
    borders = share_out(chunks, shares)
    assert (len(borders), borders[0], borders[-1]) == (len(shares) + 1, 0, chunks)
    total = sum(map(Fraction, shares))
    for (start, stop), share in zip(pairwise(borders), shares, strict=True):
        assert stop >= start
        assert abs(stop - start - chunks * Fraction(share) / total) < Fraction(1001, 1000)
    assert share_out(chunks, shares) == borders


@given(st.integers(0, 1 << 20), st.integers(1, 64))
def test_equal_shares_differ_by_one_chunk_and_the_first_have_more(
    chunks: int, members: int
) -> None:
    sizes = [stop - start for start, stop in pairwise(share_out(chunks, [1.0] * members))]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1


@given(st.integers(1, 1000), st.integers(1, 10), st.integers(1, 64))
def test_a_member_without_a_share_gets_no_chunk(chunks: int, idle: int, members: int) -> None:
    borders = share_out(chunks, [0.0] * idle + [3.0] * members)
    assert borders[: idle + 1] == (0,) * (idle + 1)


@pytest.mark.parametrize(
    "shares",
    [
        [],
        [0.0],
        [0.0, 0.0],
        [1.0, -1.0, 3.0],
        [math.nan, 1.0],
        [math.inf, 1.0],
        [1e308, 1e308],
        [1e306],
    ],
)
def test_shares_that_divide_nothing_are_refused(shares: list[float]) -> None:
    with pytest.raises(ValueError, match="cannot divide"):
        share_out(1000, shares)


@given(st.integers(1, 10**9))
def test_chunks_cover_the_vector(parameters: int) -> None:
    chunks = chunk_count(parameters)
    assert element_range(0, chunks, parameters) == (0, parameters)
    start, stop = element_range(chunks - 1, chunks, parameters)
    assert 0 < stop - start <= CHUNK_ELEMENTS
    assert start % CHUNK_ELEMENTS == 0
    assert element_range(chunks, chunks, parameters) == (parameters, parameters)


def test_chunks_fit_every_codec_and_state_pieces_fit_chunks() -> None:
    for block in (64, 256, 4096):
        assert CHUNK_ELEMENTS % block == 0
    assert STATE_CHUNK_BYTES % (4 * CHUNK_ELEMENTS) == 0
    assert chunk_count(0) == 0


def _cost(sizes: list[int], bandwidths: list[float]) -> float:
    """Return the slowest member's time where member i sends V [1 + (k - 2) f_i], in units of V."""
    whole = sum(sizes)
    return max(
        (1 + (len(sizes) - 2) * size / whole) / bandwidth
        for size, bandwidth in zip(sizes, bandwidths, strict=True)
    )


def _best_shares(bandwidths: list[float]) -> list[float]:
    """Return the shares f_i = max(0, (T b_i - 1) / (k - 2)) for the least T at which they sum to 1.

    Bisection finds T.
    """
    low, high = 0.0, 100 / min(bandwidths)
    for _ in range(100):
        time = (low + high) / 2
        shares = [
            max(0.0, (time * bandwidth - 1) / (len(bandwidths) - 2)) for bandwidth in bandwidths
        ]
        low, high = (low, time) if sum(shares) > 1 else (time, high)
    return shares


def test_the_reference_split() -> None:
    """Divide 1,024 elements among bandwidths 0.3, 0.5 and 0.9.

    The division is no worse than 0, 255, 769, the optimum of hivemind's linear program.
    """
    bandwidths = [0.3, 0.5, 0.9]
    assert share_out(1024, [0, 255, 769]) == (0, 0, 255, 1024)
    sizes = [stop - start for start, stop in pairwise(share_out(1024, _best_shares(bandwidths)))]
    assert _cost(sizes, bandwidths) <= _cost([0, 255, 769], bandwidths) + 1e-9
    assert _cost([342, 341, 341], bandwidths) > 1.3 * _cost([0, 255, 769], bandwidths)
