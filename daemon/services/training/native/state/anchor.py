"""Holds the anchor (parameters and momentum) and the spare buffers of the next anchor.

Every node at one certificate holds the same anchor, byte for byte.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import trio

from protocol.averaging.outer_step import LEAF_ELEMENTS, state_leaf, state_leaves
from protocol.averaging.vector_layout import Vector
from protocol.digest import Digest, merkle_root
from protocol.messages.offer import Ready
from protocol.ports.offload import Offload
from protocol.rules.registry import rules_of
from protocol.run.manifest import Manifest, Outer

# The states whose leaves are kept for downloads: as many as the disk keeps checkpoints.
STATES_KEPT = 3


class Anchor:
    """Four vectors of shape (parameters,): the current state, and the state that a vote is about.

    The spare vectors belong to rounds and merges, which write them with `written` held. A download
    has its own vectors. Once they are complete, `receive` makes them the spare ones.
    """

    def __init__(self, parameters: int, manifest: Manifest) -> None:
        self.parameters = parameters
        self._rules = rules_of(manifest)
        self.value, self.momentum, self.spare_value, self.spare_momentum = (
            np.zeros(parameters, np.float32) for _ in range(4)
        )
        self._spare_leaves: list[Digest] = []
        self.leaves: OrderedDict[Digest, list[Digest]] = OrderedDict()
        # Locked while a checkpoint is written from `value` and `momentum`.
        self.written = trio.Lock()

    async def step(
        self,
        mean: Callable[[int, Vector], Vector],
        counted: Sequence[Ready],
        outer: Outer,
        offload: Offload,
    ) -> Digest:
        """Apply the outer step into the spare buffers; return the digest of the state there.

        Each leaf of the state is decoded, stepped and hashed while it is in cache.

        Args:
            mean: `mean(start, out)` returns elements `[start, start + out.size)` of the averaged
                pseudo-gradient, in `out` or in place.
            counted: The offers whose contributions the mean averages.
            outer: The outer rules of this round (`protocol/run/schedule.py`).
            offload: Runs the arithmetic in a thread.
        """
        rounds = self._rules.rounds_in(counted)

        def work() -> list[Digest]:
            piece = np.empty(min(LEAF_ELEMENTS, self.parameters), np.float32)
            values: list[Digest] = []
            momenta: list[Digest] = []
            for start in range(0, self.parameters, LEAF_ELEMENTS):
                at = slice(start, min(start + LEAF_ELEMENTS, self.parameters))
                averaged = mean(start, piece[: at.stop - at.start])
                before, after = (
                    (self.value[at], self.momentum[at]),
                    (self.spare_value[at], self.spare_momentum[at]),
                )
                self._rules.outer_step(*before, averaged, outer, *after, rounds=rounds)
                values.append(state_leaf(self.spare_value[at]))
                momenta.append(state_leaf(self.spare_momentum[at]))
            return values + momenta

        # The writer of the last checkpoint may still read what is spare now.
        async with self.written:
            self._spare_leaves = await offload(work)
        return merkle_root(self._spare_leaves)

    async def digest_spare(self, offload: Offload) -> Digest:
        """Return the digest of the state that was written to the spare buffers."""
        self._spare_leaves = await offload(
            lambda: state_leaves(self.spare_value, self.spare_momentum)
        )
        return merkle_root(self._spare_leaves)

    async def receive(self, value: Vector, momentum: Vector, leaves: list[Digest]) -> None:
        """Make a complete state, with its leaves, the spare state.

        The vectors then belong to the anchor.
        """
        async with self.written:
            self.spare_value, self.spare_momentum, self._spare_leaves = value, momentum, leaves

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes `[offset, offset + size)` of the current state.

        The state is the parameters, then the momentum, as little-endian float32.
        """
        parts = (
            np.ascontiguousarray(part, "<f4").data.cast("B") for part in (self.value, self.momentum)
        )
        border = 4 * self.parameters
        return b"".join(
            bytes(part[max(0, offset - start) : max(0, offset + size - start)])
            for part, start in zip(parts, (0, border), strict=True)
        )

    async def average_spare(
        self,
        other: tuple[Vector, Vector],
        weights: tuple[int, int],
        *,
        ours_first: bool,
        offload: Offload,
    ) -> Digest:
        """Average another branch's state (value, momentum) with this one into the spare buffers.

        `weights` are in the parents' order.
        """

        def work() -> list[Digest]:
            spare = (self.spare_value, self.spare_momentum)
            for ours, theirs, out in zip((self.value, self.momentum), other, spare, strict=True):
                first, second = (ours, theirs) if ours_first else (theirs, ours)
                self._rules.merge_vectors(first, second, weights, out)
            return state_leaves(self.spare_value, self.spare_momentum)

        async with self.written:
            self._spare_leaves = await offload(work)
        return merkle_root(self._spare_leaves)

    def adopt(self, tip: Digest) -> None:
        """Make the spare buffers the anchor of `tip`."""
        self.value, self.spare_value = self.spare_value, self.value
        self.momentum, self.spare_momentum = self.spare_momentum, self.momentum
        self.leaves[tip] = self._spare_leaves
        while len(self.leaves) > STATES_KEPT:
            self.leaves.popitem(last=False)
