"""The clip: no part of a chunk exceeds the bound that the voters' chunks make."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.averaging.clip import (
    LANES,
    MOST_FLOORS,
    RATIO,
    ClipPart,
    ClipScale,
    bounds,
    chunk_energies,
    factors,
)
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.codec import codec_named
from protocol.codec.numpy_codec import PIECE_ELEMENTS

FLOAT32 = codec_named("float32")


def _energy(chunk: Vector) -> float:
    """The definition, one addition at a time."""
    lanes = [0.0] * LANES
    for place, value in enumerate(chunk.tolist()):
        lanes[place % LANES] += value * value
    distance = LANES // 2
    while distance:
        lanes = [lanes[i] + lanes[i + distance] for i in range(distance)]
        distance //= 2
    return lanes[0]


@given(
    size=st.sampled_from([1, 63, 64, 65, 130, CHUNK_ELEMENTS, CHUNK_ELEMENTS + 1])
    | st.integers(1, 3 * CHUNK_ELEMENTS),
    seed=st.integers(0, 999),
    power=st.integers(-45, 38),
)
def test_chunk_energies_equal_the_definition_to_the_bit(size: int, seed: int, power: int) -> None:
    random = np.random.default_rng(seed)
    values = (random.uniform(-3, 3, size) * 10.0**power).astype(np.float32)
    wanted = [_energy(values[at : at + CHUNK_ELEMENTS]) for at in range(0, size, CHUNK_ELEMENTS)]
    assert chunk_energies(values).tolist() == wanted


def _bound(lengths: list[float], votes: list[bool], floor: float = 0.0) -> float:
    return float(bounds(np.array(lengths)[:, None], votes, floor)[0])


def test_the_bound_is_the_lower_median_of_the_voters() -> None:
    assert _bound([1, 2, 3, 4, 99], [True] * 4 + [False], 1.0) == 2.0
    assert _bound([5, 1, 4, 2, 3], [True] * 5, 1.0) == 3.0


def test_the_bound_is_the_longest_where_a_median_says_little() -> None:
    three = [True] * 3 + [False]
    assert _bound([1, 2, 3, 99], three, 1.0) == 3.0, "fewer than four voters"
    assert _bound([1, 2, 3, 99], three) == 3.0
    assert _bound([1, 2, 3, 4], [False] * 4, 1.0) == 2.0, "no voter contributes"


def test_the_bound_before_a_usual_norm_is_the_median_of_what_is_not_zero() -> None:
    """One voter of many must not destroy the model in the first rounds."""
    assert _bound([1, 2, 1e9, 3, 4], [True] * 5) == 3.0
    assert _bound([0, 0, 0, 2, 1e9], [True] * 5) == 2.0
    assert _bound([0, 0, 0, 0], [True] * 4) == 0.0
    assert _bound([0, 0, 0, 7], [True] * 4) == 7.0


@given(
    lengths=st.lists(st.floats(0, 1e30), min_size=1, max_size=12),
    floor=st.floats(1e-30, 1e30),
    data=st.data(),
)
def test_the_bound_stays_between_floor_and_eight_floors(
    lengths: list[float], floor: float, data: st.DataObject
) -> None:
    votes = data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    assert floor <= _bound(lengths, votes, floor) <= MOST_FLOORS * floor


def test_factors_scale_down_to_the_bound_and_never_up() -> None:
    roots = np.array([[0.0], [1.0], [3.0], [30.0]])
    shares = factors(roots, np.array([2.0]), [RATIO, RATIO, RATIO, 2 * RATIO])
    assert shares[:, 0].tolist() == [1.0, 1.0, 1.0, 0.2]
    assert factors(roots, np.array([0.0]), [RATIO] * 4)[:, 0].tolist() == [1.0, 0.0, 0.0, 0.0]


def _mean(parts: list[Vector], norm: float = 0.0, votes: int | None = None) -> Vector:
    size = parts[0].size
    out = np.empty(size, np.float32)
    FLOAT32.clipped_mean(
        [
            ClipPart(weight=1, data=FLOAT32.encode(part), votes=votes is None or i < votes)
            for i, part in enumerate(parts)
        ],
        ClipScale(norm=norm, parameters=size),
        out,
    )
    return out


def test_without_a_long_part_the_clipped_mean_is_the_weighted_mean() -> None:
    random = np.random.default_rng(4)
    size = PIECE_ELEMENTS + 3 * CHUNK_ELEMENTS + 77
    parts = [random.standard_normal(size, np.float32) for _ in range(5)]
    plain, clipped = np.empty(size, np.float32), np.empty(size, np.float32)
    encoded = [(i + 1, FLOAT32.encode(part)) for i, part in enumerate(parts)]
    FLOAT32.mean(encoded, plain)
    kept = FLOAT32.clipped_mean(
        [ClipPart(weight=weight, data=data, votes=True) for weight, data in encoded],
        ClipScale(norm=math.sqrt(size), parameters=size),
        clipped,
    )
    assert clipped.tobytes() == plain.tobytes()
    assert kept.tolist() == [36.0] * 5


def test_a_spike_in_one_bias_is_clipped_by_its_chunk() -> None:
    """Story trust-spike: all of the length in one element."""
    random = np.random.default_rng(5)
    size = 8 * CHUNK_ELEMENTS
    honest = [random.standard_normal(size, np.float32) for _ in range(7)]
    spike = np.zeros(size, np.float32)
    spike[CHUNK_ELEMENTS] = 1e6
    usual = math.sqrt(size)
    wanted = _mean([*honest, np.zeros(size, np.float32)], norm=usual)
    found = _mean([*honest, spike], norm=usual)
    apart = np.flatnonzero(found != wanted)
    assert apart.tolist() == [CHUNK_ELEMENTS]
    assert abs(float(found[CHUNK_ELEMENTS])) < 1.7 * math.sqrt(CHUNK_ELEMENTS) / 8


def test_two_voters_of_whom_one_offers_zeros_do_not_silence_the_other() -> None:
    """Story trust-zero-median, first half."""
    honest = np.random.default_rng(6).standard_normal(2 * CHUNK_ELEMENTS, np.float32)
    zeros = np.zeros_like(honest)
    for norm in (0.0, float(np.linalg.norm(honest))):
        assert np.array_equal(_mean([honest, zeros], norm), honest / 2)


def test_a_slice_that_only_one_of_five_touches_still_learns() -> None:
    """Story trust-zero-median, second half: the median of the chunk is zero."""
    lone = np.random.default_rng(7).standard_normal(CHUNK_ELEMENTS, np.float32)
    zeros = [np.zeros_like(lone) for _ in range(4)]
    length = float(np.linalg.norm(lone))
    # Of a step of usual length this chunk has its share by size, so F is that length.
    assert np.array_equal(_mean([lone, *zeros], norm=length), lone / 5)
    assert np.array_equal(_mean([lone, *zeros]), lone / 5), "before a usual norm is known"
    short = _mean([lone, *zeros], norm=length / 3)
    assert np.linalg.norm(short) == pytest.approx(RATIO * length / 3 / 5, rel=1e-5)


def test_evil_voters_alone_in_a_group_reach_eight_floors() -> None:
    """Story trust-two-levels, first half."""
    evil = [np.full(CHUNK_ELEMENTS, 1e9, np.float32) for _ in range(5)]
    made = _mean(evil, norm=64.0)
    assert np.linalg.norm(made.astype(np.float64)) <= RATIO * MOST_FLOORS * 64.0 * (1 + 1e-6)


def test_mean_of_a_group_of_evil_voters_is_bounded_again_among_the_groups() -> None:
    """Story trust-two-levels, second half: each group's mean counts as a voter of the next sum."""
    random = np.random.default_rng(8)
    evil = _mean([np.full(CHUNK_ELEMENTS, 1e9, np.float32) for _ in range(5)], norm=64.0)
    honest = [random.standard_normal(CHUNK_ELEMENTS, np.float32) for _ in range(3)]
    without = _mean([*honest, np.zeros_like(evil)], norm=64.0)
    moved = (_mean([*honest, evil], norm=64.0) - without).astype(np.float64)
    assert np.linalg.norm(evil) > 10 * 64.0
    # Honest means are about 64 long, and four groups share the sum.
    assert np.linalg.norm(moved) <= RATIO * 1.05 * 64.0 / 4
