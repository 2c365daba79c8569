"""The anchor: parameters and momentum that every holder of a certificate has byte for byte, and the spare buffers of the next one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import trio

from protocol.digest import Digest, merkle_root
from protocol.manifest import Manifest
from protocol.messages import Ready
from protocol.outer import LEAF_ELEMENTS, state_leaf, state_leaves
from protocol.ports import Offload, Vector
from protocol.rules.registry import rules_of

STATES_KEPT = 3  # whose leaves are kept for downloaders: as many as the disk keeps checkpoints


class Anchor:
    """Four vectors of shape (parameters,): the current state, and the one a vote would move to."""

    def __init__(self, parameters: int, manifest: Manifest) -> None:
        self.parameters = parameters
        self._outer, self._rules = manifest.outer, rules_of(manifest)
        self.value, self.momentum, self.spare_value, self.spare_momentum = (np.zeros(parameters, np.float32) for _ in range(4))
        self._spare_leaves: list[Digest] = []
        self.leaves: OrderedDict[Digest, list[Digest]] = OrderedDict()
        self.written = trio.Lock()  # held while a checkpoint is being written from `value` and `momentum`

    async def step(self, mean: Callable[[int, Vector], Vector], counted: Sequence[Ready], offload: Offload) -> Digest:
        """The outer step into the spare buffers. Returns the digest of the state there. `counted` are the offers that the mean is of.

        `mean(start, out)` gives the averaged pseudo-gradient of `out`'s size from element `start` on, in `out` or where it lies. The vector is worked
        through leaf by leaf of the state's digest, decoded, stepped and hashed while it is in cache.
        """

        rounds = self._rules.rounds_in(counted)

        def work() -> list[Digest]:
            piece = np.empty(min(LEAF_ELEMENTS, self.parameters), np.float32)
            values: list[Digest] = []
            momenta: list[Digest] = []
            for start in range(0, self.parameters, LEAF_ELEMENTS):
                at = slice(start, min(start + LEAF_ELEMENTS, self.parameters))
                averaged = mean(start, piece[: at.stop - at.start])
                before, after = (self.value[at], self.momentum[at]), (self.spare_value[at], self.spare_momentum[at])
                self._rules.outer_step(*before, averaged, self._outer, *after, rounds=rounds)
                values.append(state_leaf(self.spare_value[at]))
                momenta.append(state_leaf(self.spare_momentum[at]))
            return values + momenta

        async with self.written:  # the last checkpoint may still be read from what is spare now
            self._spare_leaves = await offload(work)
        return merkle_root(self._spare_leaves)

    async def digest_spare(self, offload: Offload) -> Digest:
        """The digest of what was put into the spare buffers by hand (a download, a checkpoint, genesis)."""
        self._spare_leaves = await offload(lambda: state_leaves(self.spare_value, self.spare_momentum))
        return merkle_root(self._spare_leaves)

    async def average_spare(self, weights: tuple[int, int], *, ours_first: bool, offload: Offload) -> Digest:
        """Average the other branch's state, which is in the spare buffers, with ours in place. `weights` are in the parents' order."""

        def work() -> list[Digest]:
            for ours, theirs in ((self.value, self.spare_value), (self.momentum, self.spare_momentum)):
                first, second = (ours, theirs) if ours_first else (theirs, ours)
                self._rules.merge_vectors(first, second, weights, theirs)
            return state_leaves(self.spare_value, self.spare_momentum)

        async with self.written:
            self._spare_leaves = await offload(work)
        return merkle_root(self._spare_leaves)

    def adopt(self, tip: Digest) -> None:
        """The spare buffers become the anchor of `tip`."""
        self.value, self.spare_value = self.spare_value, self.value
        self.momentum, self.spare_momentum = self.spare_momentum, self.momentum
        self.leaves[tip] = self._spare_leaves
        while len(self.leaves) > STATES_KEPT:
            self.leaves.popitem(last=False)
