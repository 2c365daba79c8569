"""float32, bfloat16 and float16: nearest values, saturation, and bits that are not finite."""

from __future__ import annotations

import struct
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.averaging.vector_layout import Vector
from protocol.codec import Codec
from protocol.codec.floats import BFloat16, Float16, Float32
from protocol.errors import PeerFault
from tests.protocol.codec.codecs import REGISTERED, VALUES, decoded

FORMATS = {"float32": "<I", "bfloat16": "<H", "float16": "<H"}
NAN = {"float32": 0x7FC00000, "bfloat16": 0xFFC0, "float16": 0x7E00}
INFINITY = {"float32": 0x7F800000, "bfloat16": 0x7F80, "float16": 0x7C00}
LARGEST = struct.unpack(">f", bytes.fromhex("7f7f0000"))[0]
ELEMENTWISE = pytest.mark.parametrize("codec", [REGISTERED[name] for name in FORMATS], ids=FORMATS)


@given(VALUES)
def test_float32_is_exact(values: Vector) -> None:
    assert decoded(Float32(), Float32().encode(values), values.size).tobytes() == values.tobytes()
    assert Float32().encode(values) == struct.pack(f"<{values.size}f", *values.tolist())


def _nearest(value: float) -> float:
    """Return the bfloat16 nearest to `value` in exact arithmetic, ties to even, saturated."""
    bits = struct.unpack(">I", struct.pack(">f", value))[0] & 0xFFFF0000
    # The neighbour towards zero.
    below = struct.unpack(">f", struct.pack(">I", bits))[0]
    if (bits & 0x7FFFFFFF) == 0x7F7F0000:
        return below
    above = struct.unpack(">f", struct.pack(">I", bits + 0x10000))[0]
    down, up = abs(Fraction(value) - Fraction(below)), abs(Fraction(above) - Fraction(value))
    return below if down < up or (down == up and not bits & 0x10000) else above


@given(VALUES)
def test_bfloat16_is_the_nearest(values: Vector) -> None:
    out = decoded(BFloat16(), BFloat16().encode(values), values.size)
    expected = np.array([_nearest(value) for value in values.tolist()], np.float32)
    # Bytes are compared because the sign of zero counts.
    assert out.tobytes() == expected.tobytes()


def test_bfloat16_ties_and_the_ends() -> None:
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 2**-134, 3 * 2**-134], np.float32)
    assert decoded(BFloat16(), BFloat16().encode(ties), 5).tolist() == [
        1.0,
        1 + 2**-6,
        -1.0,
        0.0,
        2**-132,
    ]
    ends = np.array([3.4028235e38, -3.4028235e38, LARGEST, 3.3961775e38], np.float32)
    assert decoded(BFloat16(), BFloat16().encode(ends), 4).tolist() == [
        LARGEST,
        -LARGEST,
        LARGEST,
        LARGEST,
    ]
    assert BFloat16().encode(np.array([1.0, -2.0], np.float32)) == bytes.fromhex("803f00c0")


def test_every_bfloat16_survives() -> None:
    """Encode and decode all 65,280 finite values."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    finite = bits[(bits & 0x7F80) != 0x7F80]
    data = finite.astype("<u2").tobytes()
    assert BFloat16().encode(decoded(BFloat16(), data, finite.size)) == data


def test_float16_is_the_nearest_and_saturates() -> None:
    values = np.array(
        [1 + 2**-11, 1 + 3 * 2**-11, 2**-24, 2**-25, 65504.0, 65519.0, 65520.0, -3e38], np.float32
    )
    expected = [1.0, 1 + 2**-9, 2**-24, 0.0, 65504.0, 65504.0, 65504.0, -65504.0]
    assert decoded(Float16(), Float16().encode(values), 8).tolist() == expected
    every = np.arange(1 << 16, dtype=np.uint16)
    data = every[(every & 0x7C00) != 0x7C00].astype("<u2").tobytes()
    assert Float16().encode(decoded(Float16(), data, len(data) // 2)) == data


@ELEMENTWISE
@given(
    values=VALUES.filter(len),
    place=st.integers(0, 1000),
    bad=st.sampled_from([NAN, INFINITY]),
    sign=st.booleans(),
)
def test_infinities_and_nans_are_refused(
    codec: Codec, values: Vector, place: int, bad: dict[str, int], sign: bool
) -> None:
    place %= values.size
    size = codec.size(1)
    data = bytearray(codec.encode(values))
    data[size * place : size * place + size] = struct.pack(
        FORMATS[codec.name], bad[codec.name] | sign << (8 * size - 1)
    )
    with pytest.raises(PeerFault, match="not finite") as refused:
        decoded(codec, bytes(data), values.size)
    assert refused.value.reason == "malformed"


@ELEMENTWISE
def test_infinities_that_cancel_are_refused_without_a_warning(codec: Codec) -> None:
    bits = INFINITY[codec.name]
    data = [
        struct.pack(FORMATS[codec.name], value)
        for value in (bits, bits | 1 << (8 * codec.size(1) - 1))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PeerFault, match="not finite"):
            decoded(codec, b"".join(data), 2)
