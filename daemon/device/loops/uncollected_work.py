"""The work that the node has not received: its vectors, its totals, and what waits for a border.

Worker process only. Every method needs the training loop's lock.
"""

from __future__ import annotations

import math

import torch

from daemon.device.loops.displacement import Displacement
from daemon.device.loops.work_totals import NO_WORK, WorkCount, WorkTotals
from daemon.device.model.vectors import is_finite


class UncollectedWork:
    """The displacement of one training loop, and the steps behind it.

    While a step is in progress, nothing may change the parameters: moves and the end of a
    divergence wait for `settle`.
    """

    def __init__(self, flat: torch.Tensor) -> None:
        """`flat` are the parameters that the loop trains, shape (parameters,)."""
        self._displacement = Displacement(flat)
        self._count = WorkCount()
        # Whether parameters that are not finite wait for the end of the step in progress.
        self.diverged = False

    @property
    def samples(self) -> int:
        """The samples of all steps that the node has not received."""
        return self._count.all.samples

    @property
    def fresh(self) -> WorkTotals:
        """The work since the last hand-over."""
        return self._count.fresh

    def place(self, anchor: torch.Tensor) -> None:
        """Start from an anchor, and drop the work."""
        self._displacement.place(anchor)
        self._count.forget()
        self.diverged = False

    def add(self, step: WorkTotals) -> None:
        """Count a finished step."""
        self._count.add(step)

    def acknowledge(self, received: bool) -> None:
        """Count from the last hand-over, if the node received it.

        Otherwise its work stays part of the next one.
        """
        self._displacement.acknowledge(received)
        self._count.acknowledge(received)

    def hand_over(self, *, paused: bool) -> WorkTotals:
        """Note the parameters of the last finished step, and return the work up to there.

        `write_delta` follows, also where there is nothing. With `paused`, the parameters do not
        move before `acknowledge`.
        """
        if self.diverged or not self._count.all.steps:
            return NO_WORK
        self._displacement.hand_over(paused=paused)
        return self._count.hand_over()

    def write_delta(self, work: WorkTotals, out: torch.Tensor) -> bool:
        """Write the delta of a `hand_over` into `out`, in the memory that the node shares.

        Returns whether the work is finite. This method does not need the lock.
        """
        if not work.steps:
            out.numpy().fill(0)
            return True
        self._displacement.write_delta(out)
        return math.isfinite(work.loss_sum) and is_finite(out.numpy())

    def shift(self, local: torch.Tensor) -> None:
        """Move by `local - start` at the next `settle`, and count from `local`."""
        self._displacement.shift(local)

    def drop_fresh(self) -> int:
        """Drop the work since the last hand-over. Returns the samples that are lost."""
        lost, self._count.fresh = self._count.fresh.samples, NO_WORK
        self.diverged = True
        return lost

    def drop_all(self) -> int:
        """Drop all work. Returns the samples that are lost."""
        lost = self._count.all.samples
        self._displacement.acknowledge(received=False)
        self._count.forget()
        self.diverged = True
        return lost

    def settle(self) -> bool:
        """Make the moves that wait, between two steps.

        Returns whether the parameters were not finite, and returned to an earlier state.
        """
        if self.diverged:
            self._displacement.undo()
            self.diverged = False
            return True
        self._displacement.settle(moved=self._count.all.steps > 0)
        return False
