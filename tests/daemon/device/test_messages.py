"""Tests of the messages between node and worker, their framing, and the shared memory."""

from __future__ import annotations

import os

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.children.frames import MAX_FRAME_BYTES, Deframer
from daemon.children.messages import frame
from daemon.device import shared_memory
from daemon.device.messages import (
    CollectWork,
    TrainFromAnchor,
    WorkerProgress,
    decode_command,
    decode_report,
)
from protocol.ports.trainer import Lane

MESSAGES = [
    TrainFromAnchor(id=1, lane=Lane(base=5, index=1, stride=4), max_steps=None),
    CollectWork(id=2, received=True),
    TrainFromAnchor(id=3, lane=Lane(base=1 << 40, index=0, stride=1), max_steps=7),
]


@given(st.lists(st.integers(1, 40)))
def test_deframer_returns_the_same_messages_for_any_cut(cuts: list[int]) -> None:
    wire = b"".join(frame(message) for message in MESSAGES)
    deframer, got = Deframer(), []
    for cut in [*cuts, len(wire)]:
        got += [decode_command(body) for body in deframer.feed(wire[:cut])]
        wire = wire[cut:]
    assert got == MESSAGES


def test_deframer_refuses_a_length_above_the_limit_at_once() -> None:
    with pytest.raises(ValueError, match="allowed"):
        list(Deframer().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big")))


@given(st.binary(max_size=60))
def test_decoders_refuse_noise_with_a_decode_error(noise: bytes) -> None:
    for decode in (decode_command, decode_report):
        try:
            message = decode(noise)
        except msgspec.DecodeError:
            continue
        assert isinstance(message, msgspec.Struct)


def test_decode_report_refuses_a_command() -> None:
    body = frame(CollectWork(id=1, received=False))[4:]
    with pytest.raises(msgspec.DecodeError):
        decode_report(body)
    report = WorkerProgress(
        stretch=1, steps=2, samples=3, loss=None, samples_per_second=0.0, longest_step_s=0.0
    )
    assert decode_report(frame(report)[4:]) == report


def test_both_sides_share_memory_that_cannot_shrink() -> None:
    fd = shared_memory.create()
    shared_memory.give_size(fd, 1000, 2002)
    ours, theirs = (
        shared_memory.SharedMemory(fd, 1000, 2002),
        shared_memory.SharedMemory(fd, 1000, 2002),
    )
    ours.anchor[:], theirs.delta[:], ours.inner[:] = 1, 2, 3
    assert (theirs.anchor.sum(), ours.delta.sum(), theirs.inner.sum()) == (1000, 2000, 6006)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 10)
    os.close(fd)
    # The mapping outlives the descriptor.
    assert np.all(ours.delta == 2)
    assert (
        ours.anchor.ctypes.data % 64
        == ours.delta.ctypes.data % 64
        == ours.inner.ctypes.data % 64
        == 0
    )


def test_shared_memory_refuses_another_size_and_missing_seals() -> None:
    fd = shared_memory.create()
    os.ftruncate(fd, 1 << 16)
    with pytest.raises(ValueError, match="shared memory"):
        shared_memory.SharedMemory(fd, 10, 22)
    shared_memory.give_size(fd, 10, 22)
    with pytest.raises(ValueError, match="shared memory"):
        shared_memory.SharedMemory(fd, 10, 4000)
    os.close(fd)
