"""Finds how many samples of a step the device computes at once, by trying.

A step first computes a whole batch. When memory runs out, the parts halve and the step begins
again, so no sample is lost. After many steps, a part of twice the size is tried again: another
program may have had the memory for a while. Worker process only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

# The steps before a larger part is tried again. A failed try costs about one step, so it costs 1%.
GROW_AFTER = 100
# The most steps between two tries: each failed one doubles the wait.
GROW_AFTER_AT_MOST = 1 << 16


class BatchParts:
    """The size of the parts of one task on one device.

    `size` is the number of samples that are computed at once, at most `batch_size`.
    """

    def __init__(self, batch_size: int, known: int = 0) -> None:
        """`known` is the size that this machine found before; 0 means none."""
        self.batch_size = batch_size
        self.size = min(batch_size, known) if known else batch_size
        # The size with which the last step succeeded, and the one that `news` returned last.
        self._found = self._told = 0
        self._good_steps = 0
        self._wait = GROW_AFTER
        self._grown = False

    def of(self, indices: Indices) -> list[Indices]:
        """Return the parts of a step's samples, in order. `indices` has shape (samples,)."""
        return [indices[at : at + self.size] for at in range(0, len(indices), self.size)]

    def halve(self) -> bool:
        """Compute smaller parts from now on. Returns False where a part has one sample already."""
        if self.size == 1:
            return False
        if self._grown:
            self._wait = min(2 * self._wait, GROW_AFTER_AT_MOST)
        self.size, self._good_steps, self._grown = max(1, self.size // 2), 0, False
        return True

    def used(self) -> None:
        """Count a step that had enough memory."""
        self._found = self.size
        self._good_steps += 1
        self._grown = False
        if self.size < self.batch_size and self._good_steps >= self._wait:
            self.size = min(self.batch_size, 2 * self.size)
            self._good_steps, self._grown = 0, True

    def news(self) -> int:
        """Return the size with which the last step succeeded, once; 0 without a change."""
        if self._found == self._told:
            return 0
        self._told = self._found
        return self._found
