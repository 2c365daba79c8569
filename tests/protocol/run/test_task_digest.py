"""The description of a task on the wire, and contents that differ in their last bits."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.errors import PeerFault
from protocol.run.task_digest import (
    MAX_TASK_BYTES,
    MAX_TENSORS,
    SourcePart,
    TaskDigest,
    TensorContent,
    TensorPart,
    bounded,
    decode_task,
    difference,
    encode_task,
)


def part(name: str, **fields: object) -> TensorPart:
    plain: Any = {"name": name, "shape": (3, 4), "dtype": "float32"}
    return TensorPart(**plain | fields)


def test_a_description_survives_the_wire() -> None:
    task = TaskDigest(
        parameters=(part("a"),),
        buffers=(part("b", content=TensorContent(digest=b"x" * 32, sketch=(1.0,))),),
        options="n = 1",
    )
    assert decode_task(encode_task(task)) == task
    assert decode_task(encode_task(task)).name == task.name


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x91" * 100_000, encode_task(TaskDigest())[:-3]])
def test_garbage_is_a_fault(data: bytes) -> None:
    with pytest.raises(PeerFault, match="do not describe a task"):
        decode_task(data)


def test_the_last_bits_of_a_sine_do_not_separate_two_nodes() -> None:
    ours = TaskDigest(
        buffers=(part("sine", content=TensorContent(digest=b"a" * 32, sketch=(0.5, 0.7, 0.1))),)
    )
    theirs = TaskDigest(
        buffers=(
            part("sine", content=TensorContent(digest=b"b" * 32, sketch=(0.5, 0.7 + 1e-7, 0.1))),
        )
    )
    other = TaskDigest(
        buffers=(part("sine", content=TensorContent(digest=b"b" * 32, sketch=(0.5, 0.701, 0.1))),)
    )
    assert ours.name != theirs.name
    assert difference(ours, theirs) == ""
    assert difference(ours, other)


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_sketch_that_is_not_finite_compares_nothing(odd: float) -> None:
    ours = TaskDigest(
        buffers=(part("mask", content=TensorContent(digest=b"a" * 32, sketch=(odd,))),)
    )
    theirs = TaskDigest(
        buffers=(part("mask", content=TensorContent(digest=b"b" * 32, sketch=(odd,))),)
    )
    assert difference(ours, theirs)


def test_other_counts_kinds_and_sources_differ() -> None:
    one, two = TaskDigest(parameters=(part("a"),)), TaskDigest(parameters=(part("a"), part("b")))
    assert "2 parameters, ours 1: `b`" in difference(one, two)
    assert "1 parameter, ours 2: `b`" in difference(two, one)
    assert "of type int8" in difference(one, TaskDigest(parameters=(part("a", dtype="int8"),)))
    assert "another version of module m" in difference(
        TaskDigest(source=(SourcePart(name="module m", digest=b"a"),)),
        TaskDigest(source=(SourcePart(name="module m", digest=b"b"),)),
    )
    assert "only the other node's task uses module m" in difference(
        TaskDigest(), TaskDigest(source=(SourcePart(name="module m", digest=b"a"),))
    )


def test_a_model_of_any_number_of_tensors_fits_the_wire() -> None:
    parts = [part(f"layers.{number}.attention.out.weight") for number in range(3 * MAX_TENSORS)]
    task = TaskDigest(parameters=bounded(parts))
    assert len(encode_task(task)) < MAX_TASK_BYTES
    assert decode_task(encode_task(task)) == task
    other = TaskDigest(parameters=bounded([*parts[:-1], part("another")]))
    assert difference(task, other)
