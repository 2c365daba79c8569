"""Where work counts from, and how the parameters move to another anchor. Worker process only.

The node may take the work while a step is computed, and may move the loop to another anchor. The
step has read the parameters, so they only change at its end: until then the move is `ahead`.

    start     the parameters at the last hand-over that the node received, or the anchor
    handed    the parameters at a hand-over that the node may not have received
    ahead     a move that waits for the end of the step in progress
"""

from __future__ import annotations

import torch

from daemon.device.model.vectors import add_to, assign, assign_difference


class Displacement:
    """The vectors of one training loop, each of shape (parameters,) on its device.

    Holds `start` and at most two more. A vector that is no longer needed is used again.
    """

    def __init__(self, flat: torch.Tensor) -> None:
        """`flat` are the present parameters, which this object moves."""
        self._flat = flat
        self.start = torch.zeros_like(flat)
        self._handed: torch.Tensor | None = None
        self._ahead: torch.Tensor | None = None
        self._spare: list[torch.Tensor] = []
        # Whether the last hand-over ended training, so that the parameters have not moved since.
        self._paused = False

    def place(self, anchor: torch.Tensor) -> None:
        """Set the parameters to an anchor, and count from there."""
        self._drop_handed()
        self._drop_ahead()
        assign(self._flat, anchor)
        assign(self.start, self._flat)

    def hand_over(self, *, paused: bool) -> None:
        """Note the present parameters. With `paused`, they do not move before `acknowledge`."""
        self._drop_handed()
        self._paused = paused
        if paused:
            return
        self._handed = self._vector()
        assign(self._handed, self._flat)
        if self._ahead is not None:
            add_to(self._handed, self._ahead)

    def write_delta(self, out: torch.Tensor) -> None:
        """Write `start` minus the parameters of the last hand-over into `out`."""
        there = self._flat if self._handed is None else self._handed
        assign_difference(out, self.start, there)

    def acknowledge(self, received: bool) -> None:
        """Count from the parameters of the last hand-over, if the node received it."""
        if received and self._handed is not None:
            self._spare.append(self.start)
            self.start, self._handed = self._handed, None
        elif received and self._paused:
            assign(self.start, self._flat)
        self._drop_handed()
        self._paused = False

    def shift(self, local: torch.Tensor) -> None:
        """Move by `local - start`, and count from `local`. `settle` moves the parameters.

        The last hand-over was acknowledged.
        """
        if self._ahead is None:
            self._ahead = self._vector()
            # On the device: `local` may be in the memory that the node shares.
            assign(self._ahead, local)
            assign_difference(self._ahead, self._ahead, self.start)
            assign(self.start, local)
        else:
            # The step in progress outlasted the last shift. Both moves share one vector.
            assign_difference(self._ahead, self._ahead, self.start)
            assign(self.start, local)
            add_to(self._ahead, self.start)

    def settle(self, *, moved: bool) -> None:
        """Make the move that waits. `moved` says whether there are steps since `start`."""
        if self._ahead is None:
            return
        if moved:
            add_to(self._flat, self._ahead)
        else:
            assign(self._flat, self.start)
        self._drop_ahead()

    def undo(self) -> None:
        """Return to the parameters of the last hand-over."""
        self._drop_ahead()
        assign(self._flat, self.start if self._handed is None else self._handed)

    def _vector(self) -> torch.Tensor:
        return self._spare.pop() if self._spare else torch.empty_like(self._flat)

    def _drop_handed(self) -> None:
        if self._handed is not None:
            self._spare.append(self._handed)
            self._handed = None

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            self._spare.append(self._ahead)
            self._ahead = None
