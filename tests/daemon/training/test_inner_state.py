"""Tests of where the inner optimizer's state is kept."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.services.training.native.state.inner_state import COPIED_BYTES, InnerState
from protocol.averaging.vector_layout import Vector
from protocol.ports.disk_records import Checkpoint
from simulator.fakes.disk import MemoryDisk
from simulator.fakes.medium import MemoryMedium

RUN = bytes(32)
LARGE = COPIED_BYTES // 8 + 1
STATE: Vector = np.arange(4, dtype=np.float32)


def checkpoint(inner: Vector) -> Checkpoint:
    zeros = np.zeros(2, np.float32)
    return Checkpoint(
        run=RUN,
        tip=bytes(32),
        number=1,
        anchor=zeros,
        momentum=zeros,
        inner=inner,
        shapes=(("w", (2,)),),
        stood=b"",
    )


def inner_state(parameters: int, disk: MemoryDisk) -> InnerState:
    return InnerState(RUN, parameters, disk, lambda code, message: pytest.fail(message))


async def test_a_large_state_is_taken_with_a_full_state_and_read_from_disk_again() -> None:
    disk = MemoryDisk(MemoryMedium())
    inner = inner_state(LARGE, disk)
    assert not inner.is_copied
    assert not (await inner.saved()).size

    async def source() -> Vector | None:
        return STATE

    inner.source = source
    present = await inner.present()
    await disk.save_checkpoint(checkpoint(present), ())
    inner.written(present)
    assert (inner.vector.size, inner.size_bytes) == (0, 16)
    assert np.array_equal(await inner.saved(), STATE)


async def test_a_large_state_on_disk_stays_while_there_is_no_trainer() -> None:
    disk = MemoryDisk(MemoryMedium())
    inner = inner_state(LARGE, disk)
    await disk.save_checkpoint(checkpoint(STATE), ())

    async def lost() -> Vector | None:
        return None

    inner.source = lost
    assert np.array_equal(await inner.present(), STATE)


async def test_a_small_state_stays_in_memory() -> None:
    inner = inner_state(1000, MemoryDisk(MemoryMedium()))
    assert inner.is_copied
    inner.vector = STATE
    inner.written(STATE)
    assert np.array_equal(await inner.present(), STATE)
    assert np.array_equal(await inner.saved(), STATE)
