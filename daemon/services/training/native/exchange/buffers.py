"""Memory that each round reuses for what it receives and sums.

The kernel clears a page when a process touches it for the first time. For slices of 10 MB, clearing
was a sixth of the cost of averaging. This module keeps memory that nothing refers to for the next
round. The limit is the largest amount in use at once during the last two rounds, so memory that
only an unusual inclusion or a larger model needed is freed.
"""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
import numpy.typing as npt

Block = npt.NDArray[np.uint8]

# Below this size malloc reuses memory itself: above it, malloc asks the kernel.
SMALL_BYTES = 1 << 17
# A block may be this many times as large as the request. Slices of one plan differ by a chunk;
# slices of two plans differ by the change in measured bandwidth.
WASTE = 1.25


class Buffers:
    """Provides memory with unspecified contents.

    One event loop acquires it; any thread may drop it.
    """

    def __init__(self) -> None:
        # The oldest block first.
        self._free: list[Block] = []
        # Blocks that a thread has dropped and `_collect` has not seen.
        self._returned: deque[Block] = deque()
        self._in_use_bytes = 0
        # The most bytes in use at once in this round, and in the last one.
        self._most_bytes = 0
        self._most_before_bytes = 0

    @property
    def size_bytes(self) -> int:
        """The size of all memory that is in use or kept."""
        self._collect()
        return self._in_use_bytes + sum(block.nbytes for block in self._free)

    def acquire(self, size_bytes: int) -> memoryview:
        """Acquire writable memory of shape (size_bytes,) and format "B".

        The memory is free again when nothing refers to it or to a part of it. Slices of the
        memoryview and `np.frombuffer` refer to it; a bare address does not.
        """
        if size_bytes < SMALL_BYTES:
            return np.empty(size_bytes, np.uint8).data
        self._collect()
        fitting = [
            i
            for i, block in enumerate(self._free)
            if size_bytes <= block.nbytes <= WASTE * size_bytes
        ]
        block = (
            self._free.pop(min(fitting, key=lambda i: self._free[i].nbytes))
            if fitting
            else np.empty(size_bytes, np.uint8)
        )
        self._in_use_bytes += block.nbytes
        self._most_bytes = max(self._most_bytes, self._in_use_bytes)
        self._drop_beyond(max(self._most_bytes, self._most_before_bytes))
        lease = block[:size_bytes]
        weakref.finalize(lease, self._returned.append, block).atexit = False
        return lease.data

    def next_round(self) -> None:
        """Begin a round, and forget how much was in use before the last round."""
        self._collect()
        self._most_before_bytes, self._most_bytes = self._most_bytes, self._in_use_bytes
        self._drop_beyond(max(self._most_bytes, self._most_before_bytes))

    def _collect(self) -> None:
        while self._returned:
            block = self._returned.popleft()
            self._in_use_bytes -= block.nbytes
            self._free.append(block)

    def _drop_beyond(self, limit: int) -> None:
        kept = sum(block.nbytes for block in self._free)
        while self._free and self._in_use_bytes + kept > limit:
            kept -= self._free.pop(0).nbytes
