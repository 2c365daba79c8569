"""Tests where the results under one inclusion are received, and how the mean is read."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.services.training.native.exchange.buffers import Buffers
from daemon.services.training.native.exchange.result_buffer import ResultBuffer
from protocol.averaging.group_layout import GroupLayout, layout_of
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector, element_range
from protocol.codec import codec_named
from protocol.digest import EMPTY_ROOT, digest, merkle_root

ELEMENTS = 9 * CHUNK_ELEMENTS - 100
# The second of three members has nothing to finish.
BORDERS = (0, 4, 4, 9)
ONE_GROUP = layout_of(((0, 1, 2),), BORDERS)
VECTOR: Vector = np.random.default_rng(5).standard_normal(ELEMENTS).astype(np.float32)


def part(layout: GroupLayout, index: int) -> Vector:
    start, stop = element_range(*layout.slices[index], ELEMENTS)
    return VECTOR[start:stop]


def put(
    results: ResultBuffer, layout: GroupLayout, index: int, memory: memoryview, codec: str
) -> None:
    codec_named(codec).encode_into(part(layout, index), 1.0, memory)
    results.put(index, digest(bytes([index])), memory, None)


def filled(codec: str, layout: GroupLayout = ONE_GROUP) -> ResultBuffer:
    results = ResultBuffer(layout, codec_named(codec), ELEMENTS, Buffers())
    for index in range(len(layout.slices)):
        if index not in results:
            put(results, layout, index, results.memory(index), codec)
    assert results.complete
    return results


def read(results: ResultBuffer, start: int, stop: int) -> Vector:
    return results.mean(start, np.full(stop - start, np.nan, np.float32))


def test_lossless_results_are_read_where_they_were_received() -> None:
    results = filled("float32")
    whole = results.vector(0, ELEMENTS)
    assert whole is not None
    assert whole.tobytes() == VECTOR.tobytes()
    out = np.empty(2 * CHUNK_ELEMENTS, np.float32)
    in_place = results.mean(3 * CHUNK_ELEMENTS, out)
    assert in_place is not out
    assert np.shares_memory(in_place, whole)
    assert in_place.tobytes() == VECTOR[3 * CHUNK_ELEMENTS : 5 * CHUNK_ELEMENTS].tobytes()


@pytest.mark.parametrize(
    ("codec", "layout"),
    [
        ("int8", ONE_GROUP),
        ("bfloat16", ONE_GROUP),
        ("float32", layout_of(((0, 1), (2, 3)), (0, 4, 9))),
    ],
)
def test_results_of_other_codecs_and_layouts_are_decoded(codec: str, layout: GroupLayout) -> None:
    results = filled(codec, layout)
    assert results.vector(0, ELEMENTS) is None
    decoded = np.empty_like(VECTOR)
    codec_named(codec).decode(codec_named(codec).encode(VECTOR), decoded)
    for start, stop in (
        (0, ELEMENTS),
        (3 * CHUNK_ELEMENTS, 6 * CHUNK_ELEMENTS),
        (8 * CHUNK_ELEMENTS, ELEMENTS),
    ):
        assert read(results, start, stop).tobytes() == decoded[start:stop].tobytes()


def test_a_place_is_used_once_and_a_second_copy_is_read_from_its_own_memory() -> None:
    """A stream breaks in the middle of a slice, and another stream sends the slice whole.

    What the first stream wrote must not be read.
    """
    results = ResultBuffer(ONE_GROUP, codec_named("float32"), ELEMENTS, Buffers())
    broken = results.memory(2)
    again = results.memory(2)
    assert not np.shares_memory(np.frombuffer(broken, np.uint8), np.frombuffer(again, np.uint8))
    put(results, ONE_GROUP, 0, results.memory(0), "float32")
    put(results, ONE_GROUP, 2, again, "float32")
    # The stream that broke writes on.
    broken[:] = bytes(len(broken))
    assert results.complete
    assert results.vector(0, ELEMENTS) is None
    assert read(results, 0, ELEMENTS).tobytes() == VECTOR.tobytes()
    within = results.vector(0, 4 * CHUNK_ELEMENTS)
    assert within is not None
    assert within.tobytes() == VECTOR[: 4 * CHUNK_ELEMENTS].tobytes()


def test_missing_results_and_slices_that_need_none() -> None:
    results = ResultBuffer(ONE_GROUP, codec_named("float32"), ELEMENTS, Buffers())
    assert [index in results for index in range(3)] == [False, True, False]
    put(results, ONE_GROUP, 2, results.memory(2), "float32")
    assert not results.complete
    put(results, ONE_GROUP, 0, results.memory(0), "float32")
    assert results.complete
    assert results.root() == merkle_root([digest(b"\0"), EMPTY_ROOT, digest(b"\2")])
    assert ResultBuffer(None, codec_named("float32"), ELEMENTS, Buffers()).complete
