"""Memory kept from round to round: given again only when nobody holds it, never more than two
rounds needed.
"""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daemon.services.training.native.exchange.buffers import SMALL_BYTES, Buffers

SIZE = 4 * SMALL_BYTES


def address(memory: memoryview) -> int:
    return int(np.frombuffer(memory, np.uint8).ctypes.data)


def test_memory_that_was_let_go_is_given_again() -> None:
    buffers = Buffers()
    first = buffers.acquire(SIZE)
    place = address(first)
    del first
    assert address(buffers.acquire(SIZE)) == place
    assert buffers.size_bytes == SIZE


def test_a_part_of_it_holds_it_whole() -> None:
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


def test_a_slightly_smaller_slice_takes_the_same_block_and_a_much_smaller_one_does_not() -> None:
    buffers = Buffers()
    place = address(buffers.acquire(SIZE))
    slightly = buffers.acquire(SIZE - 16384)
    assert address(slightly) == place
    assert slightly.nbytes == SIZE - 16384
    del slightly
    assert address(buffers.acquire(SIZE // 2)) != place


def test_what_two_rounds_did_not_need_is_dropped() -> None:
    buffers = Buffers()
    held = [buffers.acquire(SIZE) for _ in range(4)]
    held.clear()
    for _ in range(2):
        assert buffers.size_bytes == 4 * SIZE
        buffers.next_round()
        buffers.acquire(SIZE)
    buffers.next_round()
    assert buffers.size_bytes == SIZE


@settings(max_examples=50, deadline=None)
@example([SMALL_BYTES, 0, SMALL_BYTES])
@given(st.lists(st.one_of(st.integers(1, 8 * SMALL_BYTES), st.just(0), st.just(-1)), max_size=60))
def test_no_two_holders_share_memory_and_all_that_is_kept_was_once_in_use(steps: list[int]) -> None:
    """A positive number takes that much, 0 lets the oldest go, -1 begins a round."""
    buffers = Buffers()
    held: list[tuple[memoryview, int]] = []
    most = 0
    for number, step in enumerate(steps):
        if step > 0:
            memory = buffers.acquire(step)
            memory[:] = bytes([number % 256]) * step
            held.append((memory, number % 256))
            del memory  # a name is a holder too
        elif step == 0 and held:
            held.pop(0)
        elif step < 0:
            buffers.next_round()
        most = max(most, sum(memory.nbytes for memory, _ in held))
        assert all(bytes(memory) == bytes([value]) * memory.nbytes for memory, value in held)
        # A block may be that much larger than what is asked for.
        assert buffers.size_bytes <= 1.25 * most
