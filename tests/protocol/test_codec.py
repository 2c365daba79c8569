"""Codecs: exact decoders, encodings that can be cut at chunk borders, and nothing that is not a number."""

from __future__ import annotations

import struct
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import CODECS, BFloat16, Codec, Float32, chunk_bytes, codec_named
from protocol.errors import PeerFault, UserError
from protocol.layout import CHUNK_ELEMENTS, chunk_count, element_range
from protocol.ports import Vector

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
EDGES = [0.0, -0.0, 1.0, 1.00390625, 1.01171875, 3.3895314e38, 3.4e38, 3.4028235e38, 1e-45, 1.1754944e-38, 9.2e-41, 2**-133]
VALUES = st.lists(FLOATS | st.sampled_from(EDGES + [-edge for edge in EDGES]), max_size=70).map(lambda values: np.array(values, np.float32))
LARGEST = struct.unpack(">f", bytes.fromhex("7f7f0000"))[0]
EVERY = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)


def decoded(codec: Codec, data: bytes, size: int) -> Vector:
    out = np.full(size, np.nan, np.float32)
    codec.decode(data, out)
    return out


@EVERY
@given(values=VALUES)
def test_sizes_and_stability(codec: Codec, values: Vector) -> None:
    data = codec.encode(values)
    assert len(data) == codec.size(values.size)
    once = decoded(codec, data, values.size)
    assert codec.encode(once) == data
    assert decoded(codec, memoryview(bytearray(data)), values.size).tobytes() == once.tobytes()


@given(VALUES)
def test_float32_is_exact(values: Vector) -> None:
    assert decoded(Float32(), Float32().encode(values), values.size).tobytes() == values.tobytes()
    assert Float32().encode(values) == struct.pack(f"<{values.size}f", *values.tolist())


def _nearest(value: float) -> float:
    """The bfloat16 nearest to `value` in exact arithmetic, ties to the even one, the largest finite one for what is beyond."""
    bits = struct.unpack(">I", struct.pack(">f", value))[0] & 0xFFFF0000
    below = struct.unpack(">f", struct.pack(">I", bits))[0]  # towards zero
    if (bits & 0x7FFFFFFF) == 0x7F7F0000:
        return below
    above = struct.unpack(">f", struct.pack(">I", bits + 0x10000))[0]
    down, up = abs(Fraction(value) - Fraction(below)), abs(Fraction(above) - Fraction(value))
    return below if down < up or (down == up and not bits & 0x10000) else above


@given(VALUES)
def test_bfloat16_is_the_nearest(values: Vector) -> None:
    out = decoded(BFloat16(), BFloat16().encode(values), values.size)
    expected = np.array([_nearest(value) for value in values.tolist()], np.float32)
    assert out.tobytes() == expected.tobytes()  # bytes: the sign of zero counts


def test_bfloat16_ties_and_the_ends() -> None:
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 2**-134, 3 * 2**-134], np.float32)
    assert decoded(BFloat16(), BFloat16().encode(ties), 5).tolist() == [1.0, 1 + 2**-6, -1.0, 0.0, 2**-132]
    ends = np.array([3.4028235e38, -3.4028235e38, LARGEST, 3.3961775e38], np.float32)
    assert decoded(BFloat16(), BFloat16().encode(ends), 4).tolist() == [LARGEST, -LARGEST, LARGEST, LARGEST]
    assert BFloat16().encode(np.array([1.0, -2.0], np.float32)) == bytes.fromhex("803f00c0")


def test_every_bfloat16_survives() -> None:
    """All 65,280 finite ones."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    finite = bits[(bits & 0x7F80) != 0x7F80]
    data = finite.astype("<u2").tobytes()
    assert BFloat16().encode(decoded(BFloat16(), data, finite.size)) == data


@EVERY
@given(values=VALUES.filter(len), place=st.integers(0, 1000), bad=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_what_is_no_number_is_refused(codec: Codec, values: Vector, place: int, bad: float) -> None:
    place %= values.size
    data = bytearray(codec.encode(values))
    bits = struct.pack("<f", bad)[-codec.size(1) :]
    data[codec.size(place) : codec.size(place + 1)] = bits
    with pytest.raises(PeerFault, match="not finite"):
        decoded(codec, bytes(data), values.size)


@EVERY
def test_infinities_that_cancel_are_refused_without_a_warning(codec: Codec) -> None:
    bits = [struct.pack("<f", value)[-codec.size(1) :] for value in (np.inf, -np.inf)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PeerFault, match="not finite"):
            decoded(codec, b"".join(bits), 2)


@EVERY
@given(values=VALUES, wrong=st.integers(-5, 5).filter(bool))
def test_a_wrong_size_is_refused(codec: Codec, values: Vector, wrong: int) -> None:
    data = codec.encode(values)
    data = data + bytes(wrong) if wrong > 0 else data[:wrong]
    if len(data) != codec.size(values.size):
        with pytest.raises(PeerFault, match="belong"):
            decoded(codec, data, values.size)


@EVERY
@given(parameters=st.integers(1, 3 * CHUNK_ELEMENTS + 7), seed=st.integers(0, 99), places=st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_any_run_of_chunks_can_be_cut_out(codec: Codec, parameters: int, seed: int, places: tuple[int, int]) -> None:
    values = np.random.default_rng(seed).standard_normal(parameters, np.float32)
    whole = codec.encode(values)
    first, last = sorted(min(place, chunk_count(parameters)) for place in places)
    start, stop = element_range(first, last, parameters)
    at = first * chunk_bytes(codec)
    part = whole[at : at + codec.size(stop - start)]
    assert part == codec.encode(values[start:stop])
    assert decoded(codec, part, stop - start).tobytes() == decoded(codec, whole, parameters)[start:stop].tobytes()


def test_names() -> None:
    assert {name: codec.name for name, codec in CODECS.items()} == {name: name for name in CODECS}
    assert codec_named("bfloat16") is CODECS["bfloat16"]
    with pytest.raises(UserError, match=r"known: float32, bfloat16") as unknown:
        codec_named("float8")
    assert unknown.value.exit_code == 2
