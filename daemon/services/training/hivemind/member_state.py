"""Holds the state of a member of a hivemind run, in memory and on disk.

The state is the anchor, the momentum, and the pending work: what the member has learned since the
last average. There are no certificates. A checkpoint is named by the digest of its state, and its
round number is this node's own count.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np

from protocol.averaging.outer_step import outer_step, state_digest
from protocol.averaging.vector_layout import Vector
from protocol.digest import Digest
from protocol.errors import OurFault
from protocol.ports.disk import Disk
from protocol.ports.disk_records import Checkpoint, LedgerRecord
from protocol.ports.offload import Offload
from protocol.ports.trainer import TaskInfo
from protocol.run.initial_parameters import initial_parameters
from protocol.run.manifest import Manifest


class MemberState:
    """One node's state in one run. All vectors have shape (parameters,)."""

    def __init__(
        self,
        *,
        run: Digest,
        manifest: Manifest,
        info: TaskInfo,
        disk: Disk,
        offload: Offload,
        genesis: Callable[[], Awaitable[Vector]] | None = None,
    ) -> None:
        """`genesis` computes the run's first parameters. Default: those of the run's seed."""
        self._run = run
        self._manifest = manifest
        self._info = info
        self._disk = disk
        self._offload = offload
        self._genesis = genesis or self._seeded
        self.number = 0
        self.anchor, self.momentum, self.pending, self._spare, self._spare_momentum = (
            np.zeros(info.parameters, np.float32) for _ in range(5)
        )
        # The samples that `pending` was learned from.
        self.samples = 0
        # How many samples of this round's lane were used.
        self.drawn = 0
        self.inner: Vector = np.zeros(0, np.float32)
        self.tip: Digest = run

    async def load(self) -> str:
        """Load the state from disk, or initialize it. Returns a sentence that says which.

        Raises `OurFault` when the disk holds another model.
        """
        checkpoint = await self._disk.load_checkpoint(self._run)
        if checkpoint is None:
            self.anchor[:] = await self._genesis()
            return "beginning at genesis"
        if checkpoint.anchor.size != self._info.parameters:
            raise OurFault(
                f"the checkpoint has {checkpoint.anchor.size} parameters, but the run's task has"
                f" {self._info.parameters}"
            )
        self.anchor[:], self.momentum[:], self.inner = (
            checkpoint.anchor,
            checkpoint.momentum,
            checkpoint.inner,
        )
        self.number, self.tip = checkpoint.number, checkpoint.tip
        origin = f"resuming from round {self.number}"
        ledger = await self._disk.load_ledger(self._run)
        if ledger is not None and ledger.tip == self.tip and ledger.samples:
            self.pending[:], self.samples, self.drawn = (
                ledger.displacement,
                ledger.samples,
                ledger.drawn,
            )
            origin += f", {self.samples} samples pending"
        return origin

    async def _seeded(self) -> Vector:
        return await self._offload(
            lambda: initial_parameters(self._info.specs, self._manifest.seed)
        )

    async def add(self, delta: Vector, samples: int) -> None:
        """Add work to the pending work. The manifest caps its weight."""
        if samples:
            await self._offload(lambda: np.add(self.pending, delta, out=self.pending))
            self.drawn += samples
            self.samples = min(self.samples + samples, self._manifest.limits.max_samples)

    async def local_parameters(self) -> Vector:
        """Return the parameters with the pending work, shape (parameters,)."""
        return await self._offload(lambda: self.anchor - self.pending)

    async def apply(self, mean: Vector) -> None:
        """Make the outer step with the mean of the group, and clear the pending work.

        Raises `ValueError`, and changes nothing, for a mean that is not finite.
        """

        def work() -> bool:
            outer_step(
                self.anchor,
                self.momentum,
                mean,
                self._manifest.outer,
                self._spare,
                self._spare_momentum,
            )
            return bool(np.isfinite(self._spare).all() and np.isfinite(self._spare_momentum).all())

        if not await self._offload(work):
            raise ValueError("the mean is not finite")
        self.anchor, self._spare = self._spare, self.anchor
        self.momentum, self._spare_momentum = self._spare_momentum, self.momentum
        self.number += 1
        self._clear_pending()

    def replace(self, number: int, anchor: Vector, momentum: Vector) -> None:
        """Replace the state by another member's, and clear the pending work."""
        self.anchor[:], self.momentum[:], self.number = anchor, momentum, number
        self._clear_pending()

    def _clear_pending(self) -> None:
        self.pending[:] = 0.0
        self.samples = self.drawn = 0

    async def save(self) -> None:
        """Write a checkpoint, durable on return. Raises `DiskFull`."""
        tip = await self._offload(lambda: state_digest(self.anchor, self.momentum))
        if tip != self.tip:
            checkpoint = Checkpoint(
                run=self._run,
                tip=tip,
                number=self.number,
                anchor=self.anchor,
                momentum=self.momentum,
                inner=self.inner,
                shapes=tuple((spec.name, spec.shape) for spec in self._info.specs),
            )
            kept = await self._disk.checkpoints(self._run)
            superseded = [other for number, other in kept if number <= self.number and other != tip]
            # The state was replaced by another member's, of a lower number.
            abandoned = [other for number, other in kept if number > self.number]
            if abandoned:
                await self._disk.leave_checkpoints(self._run, abandoned)
            await self._disk.save_checkpoint(checkpoint, superseded)
            self.tip = tip

    async def save_pending(self) -> None:
        """Write the pending work, durable on return. Raises `DiskFull`."""
        await self._disk.save_ledger(
            LedgerRecord(
                run=self._run,
                tip=self.tip,
                next_seq=1,
                weight=0,
                carried=0,
                offered_seq=0,
                offered_weight=0,
                offered_digest=bytes(32),
                offered=b"",
                residue=np.zeros_like(self.pending),
                samples=self.samples,
                displacement=self.pending,
                drawn=self.drawn,
            )
        )
