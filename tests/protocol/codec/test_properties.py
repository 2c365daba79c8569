"""The property suite that every codec passes, also one that is registered at run time."""

from __future__ import annotations

import warnings
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector, chunk_count, element_range
from protocol.codec import Codec, chunk_bytes
from protocol.codec.numpy_codec import PIECE_ELEMENTS
from protocol.errors import PeerFault
from tests.protocol.codec.codecs import EVERY, REFERENCES, SUITE, VALUES, decoded


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
    """A decoded mean can travel again without further loss."""
    values = np.random.default_rng(seed).standard_normal(elements, np.float32) * np.float32(
        10.0**power
    )
    if codec.name == "float16":
        values = np.clip(values, -1e4, 1e4)
    once = decoded(codec, codec.encode(values), elements)
    assert codec.encode(once) == codec.encode(decoded(codec, codec.encode(once), elements))
    assert np.array_equal(decoded(codec, codec.encode(once), elements), once)


@EVERY
@given(
    elements=st.integers(1, 2 * CHUNK_ELEMENTS + 9),
    place=st.integers(0, 1 << 20),
    bad=st.sampled_from([np.nan, -np.nan, np.inf, -np.inf]),
    power=st.sampled_from([-30, 0, 30]),
)
def test_infinities_and_nans_are_not_encoded(
    codec: Codec, elements: int, place: int, bad: float, power: int
) -> None:
    values = np.full(elements, 10.0**power, np.float32)
    values[place % elements] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="not finite, so it cannot be offered"):
            codec.encode(values)


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
        with pytest.raises(PeerFault, match="are expected"):
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
    [*SUITE.values(), *REFERENCES.values()],
    ids=[*SUITE, *(f"{name} in numpy" for name in REFERENCES)],
)
@given(
    elements=st.integers(0, 3 * CHUNK_ELEMENTS),
    seed=st.integers(0, 99),
    over=st.sampled_from([1, 3, 17]),
)
def test_encoding_into_memory_makes_the_same_bytes(
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
def test_encoding_divides_before_it_rounds(
    codec: Codec, elements: int, seed: int, over: int
) -> None:
    values = np.random.default_rng(seed).standard_normal(elements, np.float32)
    assert codec.encode(values, over) == codec.encode(values / np.float32(over))
    assert codec.encode(values, 1) == codec.encode(values)


@EVERY
@given(
    elements=st.sampled_from([0, 1, 63, 257, CHUNK_ELEMENTS, PIECE_ELEMENTS + 5]),
    seed=st.integers(0, 99),
    weight=st.integers(-(1 << 20), 1 << 20),
)
def test_add_equals_decode_multiply_and_add(
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
def test_check_raises_what_decode_raises(codec: Codec) -> None:
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
    with pytest.raises(PeerFault, match="are expected"):
        codec.check(data[:-1], values.size)


@EVERY
def test_other_shapes_and_types_are_refused(codec: Codec) -> None:
    """A vector is contiguous float32 of one dimension.

    The loops would read or write any other array at the wrong places.
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
