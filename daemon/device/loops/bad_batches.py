"""Batches that could not be used, counted: a few are the data's, many are the task's.

Worker process only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from daemon.device.messages import BatchUnusable
from daemon.device.model.author_code import SampleFault, TaskFault

Indices = npt.NDArray[np.int64]

# One bad sample spoils the batch it is in. In a data set of a few batches that is a large share of
# them; above a quarter the average would mostly be of what happens to work, which is not what the
# author meant to train.
BAD_SHARE = 0.25
# Beside the share: a bad sample may come early. So a task that fails at every batch ends at its
# sixth.
BAD_AT_ONCE = 4
# Batches in a row whose loss or gradient is not finite, after others that were fine: the parameters
# are where nothing can be learned from, so training begins again from the last anchor. Bad samples
# do not come in rows.
DIVERGED_IN_A_ROW = 5
# The first are told one by one, later ones when their number has doubled.
TOLD_EACH = 3
SHOWN_INDICES = 16  # of a batch, in words
# In the sentence that ends the training, which also says what to do: a status cuts long sentences.
SHOWN_AT_THE_END = 4


class BadBatches:
    """Counts of one life of the worker. `good` counts the batches that were used."""

    def __init__(self) -> None:
        self.good = 0
        self.bad = 0
        self._in_a_row = 0
        self.last: BatchUnusable | None = None  # the newest, with where it was

    def add(
        self,
        positions: Indices,
        indices: Indices,
        fault: SampleFault,
        culprit: Callable[[], int | None],
    ) -> None:
        """Count a bad batch.

        `culprit` finds the place in the batch of a sample that fails alone; it is asked where a
        line is worth it.

        Raises `TaskFault` when they are too many.
        """
        self.bad += 1
        self._in_a_row = 0 if fault.trace else self._in_a_row + 1
        where = _where(indices, positions, SHOWN_INDICES)
        place = culprit() if self.tell else None
        if place is not None:
            where = f"sample {indices[place]} (position {positions[place]}) of {where}"
        self.last = BatchUnusable(
            what=fault.what,
            where=where,
            trace=fault.trace,
            skipped=self.bad,
            drawn=self.good + self.bad,
        )
        if self.bad > BAD_AT_ONCE + BAD_SHARE * (self.good + self.bad):
            where = _where(indices, positions, SHOWN_AT_THE_END)
            raise TaskFault(
                f"{fault.what}. {self.bad} of {self.good + self.bad} batches could not be used, the last one with {where}",
                fix=f"mend or leave out these samples; up to {BAD_SHARE:.0%} of all batches are skipped",
                trace=fault.trace,
            ) from fault

    def used(self) -> None:
        """Count a good batch."""
        self.good += 1
        self._in_a_row = 0

    @property
    def diverged(self) -> bool:
        """Whether the last batches were all not finite, though others had been.

        Counts anew from then on.
        """
        if not self.good or self._in_a_row < DIVERGED_IN_A_ROW:
            return False
        self._in_a_row = 0
        return True

    @property
    def tell(self) -> bool:
        """Whether the newest is worth a line: a broken file must not fill the log."""
        return self.bad <= TOLD_EACH or self.bad & (self.bad - 1) == 0


def _where(indices: Indices, positions: Indices, most: int) -> str:
    return f"data indices {_listed(indices, most)} (positions {_listed(positions, most)})"


def _listed(numbers: Indices, most: int) -> str:
    shown = ", ".join(str(number) for number in numbers[:most].tolist())
    return shown if len(numbers) <= most else f"{shown}, ... ({len(numbers)} in all)"
