"""The sum: deterministic bytes that equal the exact weighted mean within float32 rounding."""

from __future__ import annotations

import warnings
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.averaging.reduction import weighted_mean
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.codec import Codec, codec_named
from protocol.codec.numpy_codec import PIECE_ELEMENTS
from protocol.digest import digest
from protocol.errors import PeerFault
from tests.protocol.codec.codecs import EVERY_REGISTERED as EVERY

EPSILON = float(np.finfo(np.float32).eps)
WEIGHTS = st.lists(st.integers(1, 100_000), min_size=1, max_size=12)


def _parts(codec: Codec, weights: list[int], seed: int, size: int) -> list[tuple[int, bytes]]:
    random = np.random.Generator(np.random.PCG64(seed))
    return [
        (
            weight,
            codec.encode((random.integers(-(1 << 20), 1 << 20, size) / 2.0**18).astype(np.float32)),
        )
        for weight in weights
    ]


def _exact(
    codec: Codec, parts: list[tuple[int, bytes]], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean in float64, and the mean of absolute values, which scales rounding."""
    total, magnitude = np.zeros(size), np.zeros(size)
    for weight, data in parts:
        value = np.empty(size, np.float32)
        codec.decode(data, value)
        total += weight * value.astype(np.float64)
        magnitude += weight * np.abs(value.astype(np.float64))
    whole = sum(weight for weight, _ in parts)
    return total / whole, magnitude / whole


def mean(codec: Codec, parts: list[tuple[int, bytes]], size: int) -> Vector:
    out = np.full(size, np.nan, np.float32)
    assert weighted_mean(parts, codec, out) == sum(weight for weight, _ in parts)
    return out


@EVERY
@given(weights=WEIGHTS, seed=st.integers(0, 999), size=st.integers(1, 300))
def test_the_sum_is_the_weighted_mean(
    codec: Codec, weights: list[int], seed: int, size: int
) -> None:
    parts = _parts(codec, weights, seed, size)
    exact, magnitude = _exact(codec, parts, size)
    assert (
        np.abs(mean(codec, parts, size) - exact) <= (len(weights) + 2) * EPSILON * magnitude
    ).all()


@EVERY
@given(
    weights=st.lists(st.integers(0, 200) | st.integers(1, 1 << 20), min_size=1, max_size=5).filter(
        any
    ),
    seed=st.integers(0, 999),
    size=st.sampled_from([0, 1, 65, 300, CHUNK_ELEMENTS, PIECE_ELEMENTS + 77]),
    power=st.sampled_from([-38, 0, 36]),
)
def test_the_sum_equals_its_definition_to_the_bit(
    codec: Codec, weights: list[int], seed: int, size: int, power: int
) -> None:
    """The definition: add weight x value from zero in order, divide once, clamp to float32."""
    source = np.random.default_rng(seed)
    parts = [
        (weight, codec.encode(source.standard_normal(size, np.float32) * np.float32(10.0**power)))
        for weight in weights
    ]
    wanted = np.zeros(size, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for weight, data in parts:
            value = np.empty(size, np.float32)
            codec.decode(data, value)
            wanted = wanted + np.float32(weight) * value
        wanted = np.nan_to_num(wanted / np.float32(sum(weights)), nan=0.0)
    assert mean(codec, parts, size).tobytes() == wanted.tobytes()


@given(
    weights=WEIGHTS,
    seed=st.integers(0, 999),
    size=st.integers(1, 300),
    order=st.randoms(use_true_random=False),
)
def test_order_matters_in_the_last_bits_alone(
    weights: list[int], seed: int, size: int, order: Random
) -> None:
    codec = codec_named("float32")
    parts = _parts(codec, weights, seed, size)
    shuffled = list(parts)
    order.shuffle(shuffled)
    _, magnitude = _exact(codec, parts, size)
    assert (
        np.abs(mean(codec, parts, size) - mean(codec, shuffled, size))
        <= 2 * (len(weights) + 2) * EPSILON * magnitude
    ).all()


@EVERY
@settings(max_examples=20)
@given(
    weights=WEIGHTS.map(lambda weights: weights[:3]),
    seed=st.integers(0, 999),
    size=st.integers(1, 3 * CHUNK_ELEMENTS),
    cut=st.integers(0, 2),
)
def test_slices_are_parts_of_the_whole(
    codec: Codec, weights: list[int], seed: int, size: int, cut: int
) -> None:
    """Every reducer of a slice makes the same bytes, whatever other slices it reduces."""
    start = min(cut * CHUNK_ELEMENTS, size // CHUNK_ELEMENTS * CHUNK_ELEMENTS)
    parts = _parts(codec, weights, seed, size)
    tails = [(weight, data[codec.size(start) :]) for weight, data in parts]
    assert mean(codec, tails, size - start).tobytes() == mean(codec, parts, size)[start:].tobytes()


@EVERY
def test_a_sum_that_overflows_is_finite_and_the_same_everywhere(codec: Codec) -> None:
    """A liar's offer can hold any finite value; the mean is still finite and can be encoded."""
    great = codec.encode(np.full(64, 3e38, np.float32))
    for parts in (
        [(1000, great)],
        [(1000, great), (5, codec.encode(np.full(64, -3e38, np.float32)))],
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            out = mean(codec, parts, 64)
        assert np.isfinite(out).all()
        assert codec.result.encode(out)


def test_the_sum_makes_golden_bytes() -> None:
    """Compare with the bytes that every machine must make."""
    codec = codec_named("bfloat16")
    parts = _parts(codec, [7, 1, 90_001, 33, 5], seed=11, size=4096)
    first = mean(codec, parts, 4096)
    assert (
        first.tobytes()
        == mean(
            codec, [(weight, memoryview(bytearray(data))) for weight, data in parts], 4096
        ).tobytes()
    )
    assert (
        digest(first.tobytes()).hex()
        == "0a81a4aed983ab98daa66447478f41bd1f70c91197e1a7d12c80d74f88967cb6"
    )


@EVERY
def test_a_sum_without_weight_is_zero(codec: Codec) -> None:
    assert mean(codec, [], 3).tolist() == [0.0, 0.0, 0.0]
    assert mean(codec, [(0, codec.encode(np.ones(3, np.float32)))], 3).tolist() == [0.0, 0.0, 0.0]
    assert mean(codec, [(4, b""), (5, b"")], 0).size == 0
    with pytest.raises(PeerFault):
        weighted_mean([(0, b"\xff" * codec.size(3))], codec, np.empty(3, np.float32))


def test_the_sum_of_one_contribution_and_of_none() -> None:
    codec = codec_named("float32")
    value = np.array([1.5, -2.25, 0.0], np.float32)
    assert mean(codec, [(8, codec.encode(value))], 3).tolist() == value.tolist()
    assert mean(codec, [], 3).tolist() == [0.0, 0.0, 0.0]
    assert mean(codec, [(4, b"")], 0).size == 0


def test_a_contribution_that_does_not_decode_is_refused() -> None:
    codec = codec_named("float32")
    good, bad = codec.encode(np.ones(2, np.float32)), np.array([np.nan, 1.0], np.float32).tobytes()
    for parts in ([(1, good), (1, bad)], [(1, good), (1, good[:-1])]):
        with pytest.raises(PeerFault):
            weighted_mean(parts, codec, np.empty(2, np.float32))
