"""Counts the batches that had to be skipped, and decides when they are too many.

A few bad batches are caused by the data, many by the task. Worker process only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from daemon.device.messages import BatchUnusable
from daemon.device.model.author_code import SampleFault, TaskFault

Indices = npt.NDArray[np.int64]

# One bad sample spoils its whole batch, which is a large share of a small data set. Above a
# quarter, training would mostly use the data that happens to work. The author did not intend that.
BAD_SHARE = 0.25
# Allowed beside the share, because a bad sample may come early. A task that fails at every batch
# thus ends at its sixth.
BAD_AT_ONCE = 4
# After this many batches in a row with a loss or a gradient that is not finite, training restarts
# from the last anchor: the parameters have diverged. Bad samples do not come in rows.
DIVERGED_IN_A_ROW = 5
# The first bad batches are reported one by one, later ones when their number has doubled.
REPORTED_EACH = 3
# How many indices of a batch a sentence shows.
SHOWN_INDICES = 16
# The same for the last sentence, which also says what to do: a status cuts long sentences.
SHOWN_AT_THE_END = 4


class BadBatches:
    """The batches of one worker process. `good` counts those that were used."""

    def __init__(self) -> None:
        self.good = 0
        self.bad = 0
        self._in_a_row = 0
        # The last bad batch.
        self.last: BatchUnusable | None = None

    def add(
        self,
        positions: Indices,
        indices: Indices,
        fault: SampleFault,
        culprit: Callable[[], int | None],
    ) -> None:
        """Count a bad batch.

        `culprit` finds the place in the batch of a sample that fails alone. It is called only when
        the batch is reported.

        Raises `TaskFault` for too many bad batches.
        """
        self.bad += 1
        self._in_a_row = 0 if fault.trace else self._in_a_row + 1
        where = _where(indices, positions, SHOWN_INDICES)
        place = culprit() if self.should_report else None
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
                f"{fault.what}. {self.bad} of {self.good + self.bad} batches could not be used, the"
                f" last one with {where}",
                fix=f"fix or leave out these samples; up to {BAD_SHARE:.0%} of all batches are"
                " skipped",
                trace=fault.trace,
            ) from fault

    def used(self) -> None:
        """Count a good batch."""
        self.good += 1
        self._in_a_row = 0

    @property
    def diverged(self) -> bool:
        """Whether the last batches were all not finite, after others that were finite.

        Reading True starts the count again.
        """
        if not self.good or self._in_a_row < DIVERGED_IN_A_ROW:
            return False
        self._in_a_row = 0
        return True

    @property
    def should_report(self) -> bool:
        """Whether to report the last bad batch: a broken file must not fill the log."""
        return self.bad <= REPORTED_EACH or self.bad & (self.bad - 1) == 0


def _where(indices: Indices, positions: Indices, most: int) -> str:
    return f"data indices {_listed(indices, most)} (positions {_listed(positions, most)})"


def _listed(numbers: Indices, most: int) -> str:
    shown = ", ".join(str(number) for number in numbers[:most].tolist())
    return shown if len(numbers) <= most else f"{shown}, ... ({len(numbers)} in all)"
