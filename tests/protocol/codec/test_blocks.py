"""int8 and int4: error bounds, exact decoders, and impossible scales and levels."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.codec import Codec
from protocol.codec.blocks import Int4, Int8
from protocol.errors import PeerFault

# The smallest scale.
TINY = 2.0**-122
LARGEST = float(np.finfo(np.float32).max)
SHAPES = st.tuples(
    st.integers(1, 2 * CHUNK_ELEMENTS + 77),
    st.integers(0, 1 << 20),
    st.sampled_from([-44, -38, -30, -7, -3, 0, 5, 38]),
)
ONE = struct.pack("<H", 0x3F80)


def made(shape: tuple[int, int, int]) -> Vector:
    """Return blocks of very different sizes, as layers are, with many zeros."""
    elements, seed, power = shape
    source = np.random.default_rng(seed)
    values = source.standard_normal(elements) * 10.0 ** (
        power + source.integers(-2, 1, -(-elements // 100)).repeat(100)[:elements]
    )
    values[source.random(elements) < 0.2] = 0.0
    return np.clip(values, -LARGEST, LARGEST).astype(np.float32)


def decoded(codec: Codec, data: bytes, size: int) -> Vector:
    out = np.full(size, np.nan, np.float32)
    codec.decode(data, out)
    return out


def peaks(values: Vector, block: int) -> np.ndarray:
    """Return the greatest magnitude of each element's block."""
    starts = np.arange(0, values.size, block)
    return np.repeat(np.maximum.reduceat(np.abs(values.astype(np.float64)), starts), block)[
        : values.size
    ]


@given(SHAPES)
def test_int8_is_at_most_half_a_step_off(shape: tuple[int, int, int]) -> None:
    values = made(shape)
    step = np.maximum(peaks(values, 256) / 127 * (1 + 2**-8), TINY)
    lost = np.abs(decoded(Int8(), Int8().encode(values), values.size) - values.astype(np.float64))
    assert (lost <= 0.50001 * step).all()


@given(SHAPES)
def test_int4_is_at_most_half_a_step_off_except_at_the_opposite_of_the_peak(
    shape: tuple[int, int, int],
) -> None:
    values = made(shape)
    peak = peaks(values, 64)
    step = np.maximum(peak / 8 * (1 + 2**-8), TINY)
    lost = np.abs(decoded(Int4(), Int4().encode(values), values.size) - values.astype(np.float64))
    # 8 - 7 (1 - 1/256) steps: the scale, too, is rounded.
    assert (lost <= 1.03 * np.maximum(peak / 8, TINY)).all()
    assert (lost <= 0.50001 * step)[np.abs(values) <= peak * 0.92].all()


def _decoded_exactly(data: bytes, elements: int, block: int, level_bits: int) -> list[Fraction]:
    """Decode one chunk, element by element, in exact arithmetic."""
    blocks = -(-elements // block)
    scales = [
        Fraction(struct.unpack("<f", bytes(2) + data[2 * i : 2 * i + 2])[0]) for i in range(blocks)
    ]
    values = []
    for i in range(elements):
        if level_bits == 8:
            level = struct.unpack_from("<b", data, 2 * blocks + i)[0]
        else:
            half = data[2 * blocks + i // 2] >> 4 * (i % 2) & 15
            level = half - 16 * (half > 7)
        values.append(level * scales[i // block])
    return values


@pytest.mark.parametrize(
    ("codec", "block", "bits"), [(Int8(), 256, 8), (Int4(), 64, 4)], ids=["int8", "int4"]
)
@given(shape=SHAPES)
def test_decoders_never_round(
    codec: Codec, block: int, bits: int, shape: tuple[int, int, int]
) -> None:
    values = made(shape)[: CHUNK_ELEMENTS // 8 + 3]
    data = codec.encode(values)
    assert [
        Fraction(value) for value in decoded(codec, data, values.size).tolist()
    ] == _decoded_exactly(data, values.size, block, bits)


def test_golden_bytes() -> None:
    values = np.array([0.5, -1.0, 127.0, 2.5, -126.5], np.float32)
    # Ties go to the even level.
    assert Int8().encode(values) == ONE + bytes([0, 255, 127, 2, 130])
    # The scale is -15.875.
    assert Int4().encode(values[2:]) == struct.pack("<H", 0xC17E) + bytes([0x08, 0x07])
    assert Int4().encode(np.array([-8.0, 7.4, 0.5, 1.5, -3.0], np.float32)) == ONE + bytes(
        [0x78, 0x20, 0x0D]
    )
    assert Int8().encode(np.zeros(3, np.float32)) == struct.pack("<H", 0x0280) + bytes(3)
    assert Int4().encode(np.array([-0.0, 0.0, 0.0], np.float32)) == struct.pack(
        "<H", 0x0280
    ) + bytes(2)


@pytest.mark.parametrize("codec", [Int8(), Int4()], ids=["int8", "int4"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_ends_of_float32(codec: Codec, sign: float) -> None:
    """The greatest float32 comes back near itself and finite; the smallest becomes zero."""
    out = decoded(codec, codec.encode(np.full(300, sign * LARGEST, np.float32)), 300)
    assert np.allclose(out, sign * LARGEST, rtol=2**-7)
    assert not decoded(codec, codec.encode(np.full(300, sign * 1e-45, np.float32)), 300).any()


@pytest.mark.parametrize("codec", [Int8(), Int4()], ids=["int8", "int4"])
@pytest.mark.parametrize("elements", [5, CHUNK_ELEMENTS, CHUNK_ELEMENTS + 5])
def test_scales_that_no_encoder_makes_are_refused(codec: Codec, elements: int) -> None:
    data = codec.encode(np.ones(elements, np.float32))
    start = codec.size(elements - elements % CHUNK_ELEMENTS) if elements > CHUNK_ELEMENTS else 0
    for scale in (0x0000, 0x8000, 0x0001, 0x027F, 0x7E00, 0x7F7F, 0x7F80, 0xFF80, 0x7FC0, 0xFFFF):
        bad = data[:start] + struct.pack("<H", scale) + data[start + 2 :]
        with pytest.raises(PeerFault, match="scale that is out of range") as refused:
            decoded(codec, bad, elements)
        assert refused.value.reason == "malformed"


def test_levels_that_no_encoder_makes_are_refused() -> None:
    with pytest.raises(PeerFault, match="level that is out of range"):
        decoded(Int8(), ONE + bytes([1, 128]), 2)
    with pytest.raises(PeerFault, match="scale that is out of range"):
        # int8 has no negative scales.
        decoded(Int8(), struct.pack("<H", 0xBF80) + bytes([1]), 1)
    assert decoded(Int4(), struct.pack("<H", 0xBF80) + bytes([0x08]), 1).tolist() == [8.0]
    with pytest.raises(PeerFault, match="behind its last element"):
        decoded(Int4(), ONE + bytes([0x18]), 1)


def test_bfloat16_scales_lose_nothing_at_any_magnitude() -> None:
    """Pseudo-gradients of 1e-7 have the same relative error as those of 1.

    So scales are bfloat16: float16 scales would lose such pseudo-gradients whole.
    """
    values = np.random.default_rng(3).standard_normal(1 << 16).astype(np.float32)
    for power in range(-9, 3):
        scaled = values * np.float32(10.0**power)
        for codec, bound in ((Int8(), 0.0072), (Int4(), 0.098)):
            lost = decoded(codec, codec.encode(scaled), scaled.size) - scaled
            assert (
                np.sqrt(
                    np.square(lost, dtype=np.float64).sum()
                    / np.square(scaled, dtype=np.float64).sum()
                )
                < bound
            )
