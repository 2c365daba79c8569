"""Divides a task's data: training draws from the first samples, evaluation scores the last.

Worker process only. Members must divide alike, so the split is part of the task's description.
"""

from __future__ import annotations

import operator

import msgspec
import numpy as np
import numpy.typing as npt

from daemon.device.model.author_code import TaskFault, author_code, place_of
from daemon.device.tasks.task import Task
from protocol.ports.trainer import HeldOutShare


class DataSplit(msgspec.Struct, frozen=True, kw_only=True):
    """Training draws the indices [0, `trained`), evaluation the last `held_out` of `total`."""

    total: int
    trained: int
    held_out: int

    def share(self, share: HeldOutShare) -> npt.NDArray[np.int64]:
        """Return the held-out indices of one share, shape (count,)."""
        return np.arange(
            self.total - self.held_out + share.index, self.total, share.count, dtype=np.int64
        )


def split_of(task: Task, total: int, *, holds_out: bool) -> DataSplit:
    """Return the split of a data set of `total` samples. Without `holds_out`, all are trained on.

    Raises `TaskFault` for a split that leaves nothing to train on.
    """
    if not holds_out:
        return DataSplit(total=total, trained=total, held_out=0)
    with author_code("held_out_size()"):
        held_out, gap = task.held_out_size(), task.held_out_gap()
        held_out, gap = operator.index(held_out), operator.index(gap)
    trained = total - held_out - (gap if held_out else 0)
    if held_out < 0 or gap < 0 or trained < 1:
        raise TaskFault(
            f"{place_of(task.held_out_size)} holds {held_out:,} of {total:,} samples out, with a"
            f" gap of {gap:,}: {trained:,} are left to train on",
            fix="hold out a small part, such as 5%; 0 holds out nothing",
        )
    return DataSplit(total=total, trained=trained, held_out=held_out)
