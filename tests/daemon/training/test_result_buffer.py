"""The results of one cut: where they are received to, and what is read of them."""

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
ONE_ROW = layout_of(((0, 1, 2),), BORDERS)
VECTOR: Vector = np.random.default_rng(5).standard_normal(ELEMENTS).astype(np.float32)


def part(layout: GroupLayout, index: int) -> Vector:
    start, stop = element_range(*layout.slices[index], ELEMENTS)
    return VECTOR[start:stop]


def put(
    gathered: ResultBuffer, layout: GroupLayout, index: int, memory: memoryview, codec: str
) -> None:
    codec_named(codec).encode_into(part(layout, index), 1.0, memory)
    gathered.put(index, digest(bytes([index])), memory, None)


def filled(codec: str, layout: GroupLayout = ONE_ROW) -> ResultBuffer:
    gathered = ResultBuffer(layout, codec_named(codec), ELEMENTS, Buffers())
    for index in range(len(layout.slices)):
        if index not in gathered:
            put(gathered, layout, index, gathered.memory(index), codec)
    assert gathered.complete
    return gathered


def read(gathered: ResultBuffer, start: int, stop: int) -> Vector:
    return gathered.mean(start, np.full(stop - start, np.nan, np.float32))


def test_lossless_results_are_read_where_they_were_received() -> None:
    gathered = filled("float32")
    whole = gathered.vector(0, ELEMENTS)
    assert whole is not None
    assert whole.tobytes() == VECTOR.tobytes()
    out = np.empty(2 * CHUNK_ELEMENTS, np.float32)
    there = gathered.mean(3 * CHUNK_ELEMENTS, out)
    assert there is not out
    assert np.shares_memory(there, whole)
    assert there.tobytes() == VECTOR[3 * CHUNK_ELEMENTS : 5 * CHUNK_ELEMENTS].tobytes()


@pytest.mark.parametrize(
    ("codec", "layout"),
    [("int8", ONE_ROW), ("bfloat16", ONE_ROW), ("float32", layout_of(((0, 1), (2, 3)), (0, 4, 9)))],
)
def test_others_are_decoded(codec: str, layout: GroupLayout) -> None:
    gathered = filled(codec, layout)
    assert gathered.vector(0, ELEMENTS) is None
    decoded = np.empty_like(VECTOR)
    codec_named(codec).decode(codec_named(codec).encode(VECTOR), decoded)
    for start, stop in (
        (0, ELEMENTS),
        (3 * CHUNK_ELEMENTS, 6 * CHUNK_ELEMENTS),
        (8 * CHUNK_ELEMENTS, ELEMENTS),
    ):
        assert read(gathered, start, stop).tobytes() == decoded[start:stop].tobytes()


def test_a_place_is_given_once_and_what_came_elsewhere_is_read_there() -> None:
    """A lane breaks in the middle of a slice, and another one brings it whole; what the first one
    wrote is nobody's.
    """
    gathered = ResultBuffer(ONE_ROW, codec_named("float32"), ELEMENTS, Buffers())
    broken = gathered.memory(2)
    again = gathered.memory(2)
    assert not np.shares_memory(np.frombuffer(broken, np.uint8), np.frombuffer(again, np.uint8))
    put(gathered, ONE_ROW, 0, gathered.memory(0), "float32")
    put(gathered, ONE_ROW, 2, again, "float32")
    broken[:] = bytes(len(broken))  # the lane that was given up writes on
    assert gathered.complete
    assert gathered.vector(0, ELEMENTS) is None
    assert read(gathered, 0, ELEMENTS).tobytes() == VECTOR.tobytes()
    within = gathered.vector(0, 4 * CHUNK_ELEMENTS)
    assert within is not None
    assert within.tobytes() == VECTOR[: 4 * CHUNK_ELEMENTS].tobytes()


def test_what_is_missing_and_what_was_never_wanted() -> None:
    gathered = ResultBuffer(ONE_ROW, codec_named("float32"), ELEMENTS, Buffers())
    assert [index in gathered for index in range(3)] == [False, True, False]
    put(gathered, ONE_ROW, 2, gathered.memory(2), "float32")
    assert not gathered.complete
    put(gathered, ONE_ROW, 0, gathered.memory(0), "float32")
    assert gathered.complete
    assert gathered.root() == merkle_root([digest(b"\0"), EMPTY_ROOT, digest(b"\2")])
    assert ResultBuffer(None, codec_named("float32"), ELEMENTS, Buffers()).complete
