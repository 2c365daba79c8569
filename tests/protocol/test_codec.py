"""Codecs: exact decoders, encodings that can be cut at chunk borders, and nothing that is not a
number.
"""

from __future__ import annotations

import os
import platform
import struct
import subprocess
import sys
import warnings
from contextlib import suppress
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.averaging.vector_layout import CHUNK_ELEMENTS, chunk_count, element_range
from protocol.codec import CODECS, REFERENCES, Codec, chunk_bytes, codec_named
from protocol.codec.floats import BFloat16, Float16, Float32
from protocol.codec.numpy_codec import PIECE_ELEMENTS
from protocol.digest import digest
from protocol.errors import PeerFault, UserError
from protocol.ports import Vector

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
EDGES = [
    0.0,
    -0.0,
    1.0,
    1.00390625,
    1.01171875,
    3.3895314e38,
    3.4e38,
    3.4028235e38,
    1e-45,
    1.1754944e-38,
    9.2e-41,
    2**-133,
]
VALUES = st.lists(FLOATS | st.sampled_from(EDGES + [-edge for edge in EDGES]), max_size=70).map(
    lambda values: np.array(values, np.float32)
)
LARGEST = struct.unpack(">f", bytes.fromhex("7f7f0000"))[0]
FORMATS = {"float32": "<I", "bfloat16": "<H", "float16": "<H"}
NAN = {"float32": 0x7FC00000, "bfloat16": 0xFFC0, "float16": 0x7E00}
INFINITY = {"float32": 0x7F800000, "bfloat16": 0x7F80, "float16": 0x7C00}
USED = {**CODECS, "topk_result": CODECS["topk"].result}
EVERY = pytest.mark.parametrize("codec", USED.values(), ids=USED)
ELEMENTWISE = pytest.mark.parametrize("codec", [CODECS[name] for name in FORMATS], ids=FORMATS)


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
    assert decoded(codec, memoryview(bytearray(data)), values.size).tobytes() == once.tobytes()
    again = codec.encode(once)
    assert np.array_equal(decoded(codec, again, values.size), once)
    # Where a chunk has not enough that is not zero, top-k may point at other zeros.
    if not codec.name.startswith("topk"):
        assert again == data


@EVERY
@given(
    elements=st.integers(0, 3 * CHUNK_ELEMENTS), seed=st.integers(0, 99), power=st.integers(-30, 30)
)
def test_stability_of_whole_chunks(codec: Codec, elements: int, seed: int, power: int) -> None:
    """A mean that travelled may travel again: nothing more is lost."""
    values = np.random.default_rng(seed).standard_normal(elements, np.float32) * np.float32(
        10.0**power
    )
    if codec.name == "float16":
        values = np.clip(values, -1e4, 1e4)
    once = decoded(codec, codec.encode(values), elements)
    assert codec.encode(once) == codec.encode(decoded(codec, codec.encode(once), elements))
    assert np.array_equal(decoded(codec, codec.encode(once), elements), once)


@given(VALUES)
def test_float32_is_exact(values: Vector) -> None:
    assert decoded(Float32(), Float32().encode(values), values.size).tobytes() == values.tobytes()
    assert Float32().encode(values) == struct.pack(f"<{values.size}f", *values.tolist())


def _nearest(value: float) -> float:
    """The bfloat16 nearest to `value` in exact arithmetic, ties to the even one, the largest finite
    one for what is beyond.
    """
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
    """All 65,280 finite ones."""
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


@EVERY
@given(
    elements=st.integers(1, 2 * CHUNK_ELEMENTS + 9),
    place=st.integers(0, 1 << 20),
    bad=st.sampled_from([np.nan, -np.nan, np.inf, -np.inf]),
    power=st.sampled_from([-30, 0, 30]),
)
def test_what_is_no_number_does_not_leave(
    codec: Codec, elements: int, place: int, bad: float, power: int
) -> None:
    values = np.full(elements, 10.0**power, np.float32)
    values[place % elements] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="not finite: it cannot be offered"):
            codec.encode(values)


@ELEMENTWISE
@given(
    values=VALUES.filter(len),
    place=st.integers(0, 1000),
    bad=st.sampled_from([NAN, INFINITY]),
    sign=st.booleans(),
)
def test_what_is_no_number_is_refused(
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


@EVERY
@given(
    elements=st.sampled_from([1, 63, 64, 65, 257, CHUNK_ELEMENTS, CHUNK_ELEMENTS + 3]),
    seed=st.integers(0, 1 << 30),
    zeros=st.booleans(),
)
def test_noise_decodes_to_numbers_or_is_refused(
    codec: Codec, elements: int, seed: int, zeros: bool
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, codec.size(elements), np.uint8)
    if zeros:
        noise[np.random.default_rng(seed).random(noise.size) < 0.9] = 0
    with warnings.catch_warnings(), suppress(PeerFault):
        warnings.simplefilter("error")
        assert np.isfinite(decoded(codec, noise.tobytes(), elements)).all()


@EVERY
@given(values=VALUES, wrong=st.integers(-5, 5).filter(bool))
def test_a_wrong_size_is_refused(codec: Codec, values: Vector, wrong: int) -> None:
    data = codec.encode(values)
    data = data + bytes(wrong) if wrong > 0 else data[:wrong]
    if len(data) != codec.size(values.size):
        with pytest.raises(PeerFault, match="belong"):
            decoded(codec, data, values.size)


@EVERY
@given(
    parameters=st.integers(1, 3 * CHUNK_ELEMENTS + 7),
    seed=st.integers(0, 99),
    places=st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_any_run_of_chunks_can_be_cut_out(
    codec: Codec, parameters: int, seed: int, places: tuple[int, int]
) -> None:
    values = np.random.default_rng(seed).standard_normal(parameters, np.float32)
    whole = codec.encode(values)
    first, last = sorted(min(place, chunk_count(parameters)) for place in places)
    start, stop = element_range(first, last, parameters)
    at = first * chunk_bytes(codec)
    part = whole[at : at + codec.size(stop - start)]
    assert part == codec.encode(values[start:stop])
    assert (
        decoded(codec, part, stop - start).tobytes()
        == decoded(codec, whole, parameters)[start:stop].tobytes()
    )


@pytest.mark.parametrize(
    "codec",
    [*USED.values(), *REFERENCES.values()],
    ids=[*USED, *(f"{name} in numpy" for name in REFERENCES)],
)
@given(
    elements=st.integers(0, 3 * CHUNK_ELEMENTS),
    seed=st.integers(0, 99),
    over=st.sampled_from([1, 3, 17]),
)
def test_memory_that_is_given_holds_the_same_bytes(
    codec: Codec, elements: int, seed: int, over: int
) -> None:
    values = np.random.default_rng(seed).standard_normal(elements).astype(np.float32)
    memory = memoryview(bytearray(b"x" * codec.size(elements)))
    codec.encode_into(values, over, memory)
    assert memory == codec.encode(values, over)
    for wrong in (
        memoryview(bytearray(len(memory) + 1)),
        memoryview(bytes(len(memory))),
        memoryview(bytearray(2 * len(memory) + 2))[::2],
    ):
        with pytest.raises(ValueError, match="for an encoding of"):
            codec.encode_into(values, over, wrong)
    if elements:
        values[elements // 2] = np.nan
        with pytest.raises(ValueError, match="is not finite"):
            codec.encode_into(values, over, memory)


@EVERY
@given(
    elements=st.sampled_from([0, 1, 63, 257, CHUNK_ELEMENTS, PIECE_ELEMENTS + 5]),
    seed=st.integers(0, 99),
    over=st.integers(1, 1 << 20),
)
def test_what_is_divided_on_the_way(codec: Codec, elements: int, seed: int, over: int) -> None:
    values = np.random.default_rng(seed).standard_normal(elements, np.float32)
    assert codec.encode(values, over) == codec.encode(values / np.float32(over))
    assert codec.encode(values, 1) == codec.encode(values)


@EVERY
@given(
    elements=st.sampled_from([0, 1, 63, 257, CHUNK_ELEMENTS, PIECE_ELEMENTS + 5]),
    seed=st.integers(0, 99),
    weight=st.integers(-(1 << 20), 1 << 20),
)
def test_adding_is_decoding_multiplying_and_adding(
    codec: Codec, elements: int, seed: int, weight: int
) -> None:
    source = np.random.default_rng(seed)
    data, out = (
        codec.encode(source.standard_normal(elements, np.float32)),
        source.standard_normal(elements, np.float32),
    )
    wanted = out + np.float32(weight) * decoded(codec, data, elements)
    taken = out - np.float32(-weight) * decoded(codec, data, elements)
    codec.add(data, weight, out)
    assert out.tobytes() == wanted.tobytes() == taken.tobytes()


@EVERY
def test_checking_is_decoding_without_a_vector(codec: Codec) -> None:
    values = np.random.default_rng(1).standard_normal(PIECE_ELEMENTS + 5, np.float32)
    data = bytearray(codec.encode(values))
    codec.check(data, values.size)
    codec.check(b"", 0)
    at = codec.size(PIECE_ELEMENTS)
    data[at : at + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(PeerFault) as decoding:
        decoded(codec, bytes(data), values.size)
    with pytest.raises(PeerFault) as checking:
        codec.check(data, values.size)
    assert str(checking.value) == str(decoding.value)
    with pytest.raises(PeerFault, match="belong"):
        codec.check(data[:-1], values.size)


@EVERY
def test_other_shapes_and_types_are_refused(codec: Codec) -> None:
    """A vector is contiguous float32 of one dimension: anything else would be read or written at
    the wrong places.
    """
    data = codec.encode(np.ones(8, np.float32))
    fixed = np.ones(8, np.float32)
    fixed.flags.writeable = False
    assert codec.encode(fixed) == data
    for wrong in (
        np.ones(16, np.float32)[::2],
        np.ones(8, np.float64),
        np.ones((2, 4), np.float32),
        np.ones(8, np.int32),
    ):
        with pytest.raises(ValueError, match="contiguous float32"):
            codec.encode(wrong)
    for wrong in (
        np.ones(16, np.float32)[::2],
        np.ones(8, np.float64),
        np.ones((2, 4), np.float32),
        fixed,
    ):
        for work in (
            lambda out: codec.decode(data, out),
            lambda out: codec.add(data, 2, out),
            lambda out: codec.mean([(1, data)], out),
        ):
            with pytest.raises(ValueError, match="contiguous float32"):
                work(wrong)


GOLDEN = {
    "float32": "b6a6a4e8e332e067",
    "bfloat16": "9079fcffe902a1be",
    "float16": "00e8d9ded9b0a4c3",
    "int8": "4f6b7a21acb64229",
    "int4": "ed7d12d9060f0bc3",
    "topk": "16c0065f4cfc3fcd",
    "topk_result": "8ea4be144d0998a3",
}
"""Of encodings of `golden_values`: BLAKE3, 16 digits."""


def golden_values() -> Vector:
    """Two chunks and a quarter, one of them of magnitudes from 1e-27 to 1e-9."""
    source = np.random.Generator(np.random.PCG64(5))
    values = (source.integers(-(1 << 20), 1 << 20, 2 * CHUNK_ELEMENTS + 1001) / 2.0**30).astype(
        np.float32
    )
    values[:CHUNK_ELEMENTS] *= values[:CHUNK_ELEMENTS] * values[:CHUNK_ELEMENTS]
    return values


def golden_digests(codecs: dict[str, Codec] = USED) -> dict[str, str]:
    values = golden_values()
    return {name: digest(codec.encode(values)).hex()[:16] for name, codec in codecs.items()}


def test_golden() -> None:
    """Bytes that every machine must make: the reference encoder's, which substitutes of a reducer
    make again.
    """
    assert golden_digests() == GOLDEN
    assert golden_digests(REFERENCES) == {name: GOLDEN[name] for name in REFERENCES}


BEYOND_2008 = "F16C FMA3 AVX AVX2 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"),
    reason="the names of vector instructions are those of x86-64",
)
def test_golden_on_an_older_processor() -> None:
    """numpy chooses its loops by the processor's vector instructions; without them the bytes are
    the same.
    """
    program = f"import sys; sys.path[:] = {sys.path!r}; from tests.protocol.test_codec import golden_digests; print(golden_digests())"
    environment = {
        **os.environ,
        "NPY_DISABLE_CPU_FEATURES": BEYOND_2008,
        "HYPERGPU_CODECS": "numpy",
    }
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == str(GOLDEN)


@pytest.mark.parametrize(
    ("name", "chunk", "rest"),
    [
        ("float32", 16384, 20),
        ("bfloat16", 8192, 10),
        ("float16", 8192, 10),
        ("int8", 4128, 7),
        ("int4", 2176, 5),
        ("topk", 84, 6),
    ],
)
def test_sizes(name: str, chunk: int, rest: int) -> None:
    """Of a whole chunk, and of five elements."""
    codec = codec_named(name)
    assert (codec.size(0), chunk_bytes(codec), codec.size(5)) == (0, chunk, rest)
    assert codec.size(3 * CHUNK_ELEMENTS + 5) == 3 * chunk + rest
    assert codec.encode(np.empty(0, np.float32)) == b""
    codec.decode(b"", np.empty(0, np.float32))


def test_the_mean_of_what_is_sparse_is_encoded_less_sparsely() -> None:
    assert {name: codec.result is codec for name, codec in CODECS.items()} == {
        name: name != "topk" for name in CODECS
    }
    assert chunk_bytes(CODECS["topk"].result) == 260


def test_names() -> None:
    assert {name: codec.name for name, codec in CODECS.items()} == {name: name for name in CODECS}
    assert codec_named("bfloat16") is CODECS["bfloat16"]
    with pytest.raises(UserError, match=r"known: float32, bfloat16") as unknown:
        codec_named("float8")
    assert unknown.value.exit_code == 2
