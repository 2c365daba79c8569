"""Where a training loop is: in its lane of samples, and in the run's schedules."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocol.ports.trainer import Lane
from protocol.run.data_order import lane_positions


class DrawOrder:
    """The lane, and the position in the run's schedules.

    `drawn` samples of the lane were used, with those of skipped batches and of a step in progress.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._lane = Lane(base=0, index=0, stride=1)
        self.drawn = 0
        self.position = 0

    def check(self, lane: Lane) -> None:
        """Raise `ValueError` for an impossible lane."""
        lane_positions(lane, 0, self._batch_size)

    def begin(self, lane: Lane, position: int) -> None:
        """Draw from the beginning of a lane."""
        self._lane, self.drawn, self.position = lane, 0, position

    def go_on(self, lane: Lane, position: int | None) -> None:
        """Draw from a lane. The same lane continues where it was.

        Without a `position`, the position continues too.
        """
        if lane != self._lane:
            self._lane, self.drawn = lane, 0
        if position is not None:
            self.position = position

    def draw(self) -> npt.NDArray[np.int64]:
        """Return the positions of the next batch in the run's order of samples, shape (batch,)."""
        positions = lane_positions(self._lane, self.drawn, self._batch_size)
        self.drawn += self._batch_size
        return positions
