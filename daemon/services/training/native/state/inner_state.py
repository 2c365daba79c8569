"""Keeps the state of the inner optimizer between a trainer and the disk.

A small state is copied after each offer, so a worker that died gets it back. A large one would cost
8 bytes a parameter of this process, and time of the device: it is taken with each full state, and a
worker that died begins again with the optimizer of the last full state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np
import trio

from protocol.averaging.vector_layout import Vector
from protocol.digest import Digest
from protocol.errors import UserError
from protocol.ports.disk import Disk

# The largest state that is copied after each offer.
COPIED_BYTES = 16 << 20
# How long a full state waits for the trainer. A worker gives its state in mid-step.
PRESENT_S = 30.0


class InnerState:
    """The inner optimizer's state of one node in one run."""

    def __init__(
        self, run: Digest, parameters: int, disk: Disk, warn: Callable[[str, str], None]
    ) -> None:
        # Whether the state is copied after each offer. AdamW's has two vectors.
        self.is_copied = 8 * parameters <= COPIED_BYTES
        # The state in memory; empty where it is on disk, or does not exist.
        self.vector: Vector = np.zeros(0, np.float32)
        # Gets the present state from the trainer; None while the trainer has none of this node's.
        self.source: Callable[[], Awaitable[Vector | None]] | None = None
        # The size in the last full state.
        self.size_bytes = 0
        self._run, self._disk, self._warn = run, disk, warn

    def resume(self, vector: Vector) -> None:
        """Begin with the state of a checkpoint."""
        self.vector, self.size_bytes = vector, 4 * vector.size

    async def saved(self) -> Vector:
        """Return the last saved state, empty without any."""
        if self.vector.size or self.is_copied:
            return self.vector
        try:
            checkpoint = await self._disk.load_checkpoint(self._run)
        except UserError as unread:
            self._warn(unread.code, f"The inner optimizer starts from zero: {unread.what}")
            return self.vector
        return self.vector if checkpoint is None else checkpoint.inner

    async def present(self) -> Vector:
        """Return the state for a full state that is written now."""
        if self.is_copied:
            return self.vector
        found: Vector | None = None
        if self.source is not None:
            with trio.move_on_after(PRESENT_S):
                found = await self.source()
        return await self.saved() if found is None else found

    def written(self, vector: Vector) -> None:
        """Note that a full state holds the state; a large one leaves the memory."""
        self.size_bytes = 4 * vector.size
        if not self.is_copied:
            self.vector = np.zeros(0, np.float32)
