"""Holds the anchor (parameters and momentum) and the spare buffers of the next anchor.

Every node at one certificate holds the same anchor, byte for byte.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec
import numpy as np
import trio

from protocol.averaging.outer_step import state_leaves
from protocol.averaging.plan_sum import StepTerms
from protocol.averaging.replay import Mean, State, limited, step_state
from protocol.averaging.vector_layout import Vector
from protocol.digest import Digest, merkle_root
from protocol.membership.branch_merge import MergeShare, merge_into
from protocol.ports.offload import Offload
from protocol.rules.registry import rules_of
from protocol.run.manifest import Manifest, Outer

# The states whose leaves are kept for downloads: as many as the disk keeps checkpoints.
STATES_KEPT = 3
# The states before the anchor that stay in memory because a peer reads them, two vectors each. A
# peer that asks for a third asks other members.
LENT_STATES = 2


class SteppedState(msgspec.Struct, frozen=True, kw_only=True):
    """What an outer step made."""

    # The digest of the state in the spare buffers.
    digest: Digest
    # By what the mean was multiplied, and its L2 norm then; 1.0 and 0.0 where steps have no limit.
    factor: float
    norm: float


class Anchor:
    """The current state, and the state that a vote is about: two vectors of (parameters,) each.

    The spare vectors belong to rounds and merges, which write them with `written` held. A download
    has its own vectors. Once they are complete, `receive` makes them the spare ones.
    """

    def __init__(self, parameters: int, manifest: Manifest) -> None:
        self.parameters = parameters
        self._rules = rules_of(manifest)
        self.value, self.momentum = (np.zeros(parameters, np.float32) for _ in range(2))
        # None until something is written there.
        self._spare: State | None = None
        self._spare_leaves: list[Digest] = []
        self.leaves: OrderedDict[Digest, list[Digest]] = OrderedDict()
        # The certificate whose state `value` and `momentum` are; empty before the first one.
        self._tip: Digest = b""
        # States before this one that peers still read.
        self._lent: OrderedDict[Digest, State] = OrderedDict()
        # Whether a peer reads the state of a tip from memory.
        self.is_read: Callable[[Digest], bool] = lambda _: False
        # Locked while a checkpoint is written from `value` and `momentum`.
        self.written = trio.Lock()

    @property
    def spare(self) -> State:
        """The vectors of the next state, with unspecified contents at first."""
        if self._spare is None:
            # A momentum of zeros never touches its memory (`outer_step_4`).
            momentum = np.zeros(self.parameters, np.float32)
            self._spare = (np.empty_like(self.value), momentum)
        return self._spare

    @property
    def spare_value(self) -> Vector:
        return self.spare[0]

    @property
    def spare_momentum(self) -> Vector:
        return self.spare[1]

    async def step(
        self, mean: Mean, terms: StepTerms, outer: Outer, offload: Offload
    ) -> SteppedState:
        """Apply the outer step into the spare buffers.

        Each leaf of the state is decoded, stepped and hashed while it is in cache.

        Args:
            mean: The averaged pseudo-gradient.
            terms: What the step needs to know of the mean's plan.
            outer: The outer rules of this round (`protocol/run/schedule.py`).
            offload: Runs the arithmetic in a thread.
        """

        def work() -> tuple[list[Digest], float, float]:
            factor, norm = limited(mean, self.parameters, terms.usual)
            leaves = step_state(
                (self.value, self.momentum),
                mean,
                self.spare,
                step=self._rules.outer_step,
                outer=outer,
                rounds=terms.rounds,
                factor=factor,
            )
            return leaves, factor, norm

        # The writer of the last checkpoint may still read what is spare now.
        async with self.written:
            self._spare_leaves, factor, norm = await offload(work)
        return SteppedState(digest=merkle_root(self._spare_leaves), factor=factor, norm=norm)

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
            self._spare, self._spare_leaves = (value, momentum), leaves

    def read(self, tip: Digest, offset: int, size: int) -> bytes | None:
        """Return bytes `[offset, offset + size)` of the state of a tip; None if this node lacks it.

        The state is the parameters, then the momentum, as little-endian float32.
        """
        state = (self.value, self.momentum) if tip == self._tip else self._lent.get(tip)
        if state is None:
            return None
        parts = (np.ascontiguousarray(part, "<f4").data.cast("B") for part in state)
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
            current = (self.value, self.momentum)
            for ours, theirs, out in zip(current, other, self.spare, strict=True):
                first, second = (ours, theirs) if ours_first else (theirs, ours)
                self._rules.merge_vectors(first, second, weights, out)
            return state_leaves(self.spare_value, self.spare_momentum)

        async with self.written:
            self._spare_leaves = await offload(work)
        return merkle_root(self._spare_leaves)

    async def absorb_spare(
        self, other: State, share: MergeShare, *, ours_first: bool, offload: Offload
    ) -> Digest:
        """Merge another branch's state with this one into the spare buffers (rules 4).

        The state with more standing moves towards the other one by `share` and keeps its momentum.
        It is this node's where `ours_first`.
        """

        def work() -> list[Digest]:
            current = (self.value, self.momentum)
            preferred, absorbed = (current, other) if ours_first else (other, current)
            merge_into(preferred[0], absorbed[0], share, self.spare_value)
            self.spare_momentum[:] = preferred[1]
            return state_leaves(self.spare_value, self.spare_momentum)

        async with self.written:
            self._spare_leaves = await offload(work)
        return merkle_root(self._spare_leaves)

    def adopt(self, tip: Digest) -> None:
        """Make the spare buffers the anchor of `tip`.

        The old state stays in memory while a peer reads it, and the spare buffers are others then.
        """
        for name in [name for name in self._lent if not self.is_read(name)]:
            del self._lent[name]
        before: State | None = (self.value, self.momentum)
        if self._tip and len(self._lent) < LENT_STATES and self.is_read(self._tip):
            self._lent[self._tip] = (self.value, self.momentum)
            before = None
        self.value, self.momentum = self.spare
        self._spare, self._tip = before, tip
        self.leaves[tip] = self._spare_leaves
        for name in list(self.leaves)[:-STATES_KEPT]:
            if name not in self._lent:
                del self.leaves[name]
