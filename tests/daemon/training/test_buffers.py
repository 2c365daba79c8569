"""Tests that `Buffers` reuses only memory without references, and keeps no more than needed."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daemon.services.training.native.exchange.buffers import SMALL_BYTES, Buffers

SIZE = 4 * SMALL_BYTES


def address(memory: memoryview) -> int:
    return int(np.frombuffer(memory, np.uint8).ctypes.data)


def test_memory_without_references_is_reused() -> None:
    buffers = Buffers()
    first = buffers.acquire(SIZE)
    place = address(first)
    del first
    assert address(buffers.acquire(SIZE)) == place
    assert buffers.size_bytes == SIZE


def test_a_reference_to_a_part_keeps_the_whole_block() -> None:
    buffers = Buffers()
    for part_of in (
        lambda memory: memory[100:104],
        lambda memory: np.frombuffer(memory, np.float32)[8:16],
    ):
        memory = buffers.acquire(SIZE)
        part = part_of(memory)
        place = address(memory)
        del memory
        other = buffers.acquire(SIZE)
        assert address(other) != place
        del other, part
        buffers = Buffers()


def test_a_block_is_reused_for_a_slightly_smaller_request_but_not_for_a_much_smaller_one() -> None:
    buffers = Buffers()
    place = address(buffers.acquire(SIZE))
    slightly = buffers.acquire(SIZE - 16384)
    assert address(slightly) == place
    assert slightly.nbytes == SIZE - 16384
    del slightly
    assert address(buffers.acquire(SIZE // 2)) != place


def test_memory_that_two_rounds_did_not_need_is_freed() -> None:
    buffers = Buffers()
    leases = [buffers.acquire(SIZE) for _ in range(4)]
    leases.clear()
    for _ in range(2):
        assert buffers.size_bytes == 4 * SIZE
        buffers.next_round()
        buffers.acquire(SIZE)
    buffers.next_round()
    assert buffers.size_bytes == SIZE


@settings(max_examples=50, deadline=None)
@example([SMALL_BYTES, 0, SMALL_BYTES])
@given(st.lists(st.one_of(st.integers(1, 8 * SMALL_BYTES), st.just(0), st.just(-1)), max_size=60))
def test_leases_never_overlap_and_kept_memory_was_once_in_use(steps: list[int]) -> None:
    """A positive step acquires as many bytes, 0 drops the oldest lease, -1 begins a round."""
    buffers = Buffers()
    leases: list[tuple[memoryview, int]] = []
    most = 0
    for number, step in enumerate(steps):
        if step > 0:
            memory = buffers.acquire(step)
            memory[:] = bytes([number % 256]) * step
            leases.append((memory, number % 256))
            # A local name is a reference too.
            del memory
        elif step == 0 and leases:
            leases.pop(0)
        elif step < 0:
            buffers.next_round()
        most = max(most, sum(memory.nbytes for memory, _ in leases))
        assert all(bytes(memory) == bytes([value]) * memory.nbytes for memory, value in leases)
        # A block may be 1.25 times as large as the request.
        assert buffers.size_bytes <= 1.25 * most
