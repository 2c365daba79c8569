"""Memory that one round after another receives into and sums into.

A page that is touched for the first time is cleared by the kernel first: for slices of 10 MB that
was a sixth of what averaging costs. Here memory that nobody refers to any more is kept for the next
round, up to as much as was in use at once in one of the last two rounds: what a node holds between
rounds is what it needs within one, and a model that became smaller, or a cut that needed more for
once, is forgotten.
"""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
import numpy.typing as npt

Block = npt.NDArray[np.uint8]

# Below, malloc reuses what it has (its threshold for asking the kernel) and there is nothing to
# gain.
SMALL_BYTES = 1 << 17
# A block may be this much larger than what is asked for: slices of one plan differ by a chunk,
# those of the next by bandwidth.
WASTE = 1.25


class Buffers:
    """Hands out memory of unspecified contents.

    One event loop takes; any thread may let go of what was taken.
    """

    def __init__(self) -> None:
        self._free: list[Block] = []  # the oldest first
        self._returned: deque[Block] = deque()  # let go, by whatever thread
        self._in_use = 0
        self._most = 0  # in use at once in this round
        self._most_before = 0  # and in the last one

    @property
    def size_bytes(self) -> int:
        """All that is held, in use or kept."""
        self._collect()
        return self._in_use + sum(block.nbytes for block in self._free)

    def take(self, size_bytes: int) -> memoryview:
        """Writable, shape (size_bytes,), format "B".

        It is ours again when nothing refers to it or to a part of it.

        (Parts are made by slicing the memoryview or with `np.frombuffer`. What goes by its address
        alone does not hold it.)
        """
        if size_bytes < SMALL_BYTES:
            return memoryview(np.empty(size_bytes, np.uint8))
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
        self._in_use += block.nbytes
        self._most = max(self._most, self._in_use)
        self._drop_beyond(max(self._most, self._most_before))
        lease = block[:size_bytes]
        weakref.finalize(lease, self._returned.append, block).atexit = False
        return memoryview(lease)

    def next_round(self) -> None:
        """What was in use at once before the last round counts no more."""
        self._collect()
        self._most_before, self._most = self._most, self._in_use
        self._drop_beyond(max(self._most, self._most_before))

    def _collect(self) -> None:
        while self._returned:
            block = self._returned.popleft()
            self._in_use -= block.nbytes
            self._free.append(block)

    def _drop_beyond(self, limit: int) -> None:
        kept = sum(block.nbytes for block in self._free)
        while self._free and self._in_use + kept > limit:
            kept -= self._free.pop(0).nbytes
