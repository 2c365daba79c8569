"""What a contribution is compared with: the nearest of the mean and the voter's own work."""

from __future__ import annotations

import numpy as np
import pytest

from protocol.audit.comparison import Piece, compare
from protocol.audit.reference import MOST_SCALE, Reference, ReferenceFit
from protocol.averaging.vector_layout import Vector
from protocol.codec import codec_named

SIZE = 1000


def vectors(count: int, seed: int = 3) -> list[Vector]:
    """Contributions with one common part, and one of the same length of each one's own."""
    rng = np.random.Generator(np.random.PCG64(seed))
    common = rng.standard_normal(SIZE, np.float32)
    return [common + rng.standard_normal(SIZE, np.float32) for _ in range(count)]


def nearest(
    contribution: Vector, mean: Vector, mine: Vector | None, share: float = 0.25
) -> Reference | None:
    fit = ReferenceFit()
    # In parts, as it is fetched.
    for part in (slice(0, 300), slice(300, SIZE)):
        fit.add(contribution[part], mean[part], None if mine is None else mine[part])
    return fit.nearest(share)


def mean_of(work: list[Vector]) -> Vector:
    mean: Vector = np.mean(np.stack(work), axis=0)
    return mean


def test_reference_is_the_mean_among_honest_members() -> None:
    work = vectors(4)
    found = nearest(work[0], mean_of(work), work[1])
    assert found is not None
    assert not found.is_mine
    assert found.scale == pytest.approx(1.0, abs=0.1)


def test_reference_is_the_voters_own_work_where_another_poisons_the_mean() -> None:
    work = vectors(4)
    noise = np.random.Generator(np.random.PCG64(1)).standard_normal(SIZE, np.float32) * 20
    found = nearest(work[0], mean_of([*work[:3], noise]), work[1])
    assert found is not None
    assert found.is_mine


def test_reference_is_the_voters_own_work_where_the_mean_is_the_contribution() -> None:
    work = vectors(2)
    assert nearest(work[0], work[0], None, share=1.0) is None
    found = nearest(work[0], work[0], work[1], share=1.0)
    assert found is not None
    assert found.is_mine
    nearly_all = work[0] * np.float32(0.99) + work[1] * np.float32(0.01)
    coarse = codec_named("int4")
    decoded = np.empty_like(nearly_all)
    coarse.decode(coarse.encode(nearly_all), decoded)
    found = nearest(work[0], decoded, work[1], share=0.99)
    assert found is not None
    assert found.is_mine


def test_reference_has_the_length_of_a_slow_machines_work() -> None:
    work = vectors(4)
    found = nearest(work[0] * np.float32(0.25), mean_of(work), None, share=0.1)
    assert found is not None
    assert found.scale == pytest.approx(0.25, abs=0.05)


def test_reference_is_never_turned_round_and_never_much_lengthened() -> None:
    work = vectors(4)
    turned, long = (
        nearest(work[0] * np.float32(factor), mean_of(work), work[1]) for factor in (-1.0, 100.0)
    )
    assert turned is not None
    assert turned.scale == 0.0
    assert long is not None
    assert long.scale == MOST_SCALE


def test_no_reference_where_mean_and_own_work_are_zero() -> None:
    zero = np.zeros(SIZE, np.float32)
    assert nearest(vectors(1)[0], zero, zero) is None


def test_comparison_moves_the_anchor_in_the_fetched_chunks_alone() -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    codec, size = codec_named("float32"), 3 * 4096 + 10
    anchor, own, mean, mine = (rng.standard_normal(size, np.float32) for _ in range(4))
    begin, end = 4096, 2 * 4096
    piece = Piece(first=1, stop=2, data=codec.encode(own[begin:end]))
    made = compare([piece], codec, anchor, mean, codec.encode(mine), 0.25)
    assert made.reference is not None
    assert not made.is_zero
    for vector in (made.work, made.reference):
        assert np.array_equal(vector[:begin], anchor[:begin])
        assert np.array_equal(vector[end:], anchor[end:])
    assert np.array_equal(made.work[begin:end], (anchor - own)[begin:end])
    nothing = Piece(first=1, stop=2, data=codec.encode(np.zeros(4096, np.float32)))
    assert compare([nothing], codec, anchor, mean, None, 0.25).is_zero
