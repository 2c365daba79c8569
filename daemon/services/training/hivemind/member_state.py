"""What a member of a hivemind run keeps: anchor, momentum, what it learned since; in memory and,
through the Disk port, across a restart.

There are no certificates: a checkpoint stands at a round number of this node's own counting, named
by the digest of its state.
"""

from __future__ import annotations

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
        self, *, run: Digest, manifest: Manifest, info: TaskInfo, disk: Disk, offload: Offload
    ) -> None:
        self._run = run
        self._manifest = manifest
        self._info = info
        self._disk = disk
        self._offload = offload
        self.number = 0
        self.anchor, self.momentum, self.learned, self._spare, self._spare_momentum = (
            np.zeros(info.parameters, np.float32) for _ in range(5)
        )
        self.samples = 0  # behind `learned`
        # Samples of this round's lane that were used.
        self.drawn = 0
        self.inner: Vector = np.zeros(0, np.float32)
        self.tip: Digest = run

    async def resume(self) -> str:
        """Take up from disk, or begin.

        Returns a sentence about which. Raises `OurFault` when the disk holds another model.
        """
        checkpoint = await self._disk.load_checkpoint(self._run)
        if checkpoint is None:
            self.anchor[:] = await self._offload(
                lambda: initial_parameters(self._info.specs, self._manifest.seed)
            )
            return "beginning at genesis"
        if checkpoint.anchor.size != self._info.parameters:
            raise OurFault(
                f"the checkpoint has {checkpoint.anchor.size} parameters, the run's task makes {self._info.parameters}"
            )
        self.anchor[:], self.momentum[:], self.inner = (
            checkpoint.anchor,
            checkpoint.momentum,
            checkpoint.inner,
        )
        self.number, self.tip = checkpoint.number, checkpoint.tip
        said = f"resuming from round {self.number}"
        ledger = await self._disk.load_ledger(self._run)
        if ledger is not None and ledger.tip == self.tip and ledger.samples:
            self.learned[:], self.samples, self.drawn = (
                ledger.displacement,
                ledger.samples,
                ledger.drawn,
            )
            said += f", {self.samples} samples pending"
        return said

    async def add(self, delta: Vector, samples: int) -> None:
        """What was trained joins what waits. Weights are capped by the manifest."""
        if samples:
            await self._offload(lambda: np.add(self.learned, delta, out=self.learned))
            self.drawn += samples
            self.samples = min(self.samples + samples, self._manifest.limits.max_samples)

    async def local(self) -> Vector:
        """The parameters that training goes on from: those that were handed over last."""
        return await self._offload(lambda: self.anchor - self.learned)

    async def apply(self, mean: Vector) -> None:
        """The outer step; what waited has been averaged.

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
        self.forget()

    def take(self, number: int, anchor: Vector, momentum: Vector) -> None:
        """Another member's state in place of ours."""
        self.anchor[:], self.momentum[:], self.number = anchor, momentum, number
        self.forget()

    def forget(self) -> None:
        """Nothing waits any more."""
        self.learned[:] = 0.0
        self.samples = self.drawn = 0

    async def write(self) -> None:
        """The state, durable on return. Raises `DiskFull`."""
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
            # The others' state was taken, and is behind.
            left = [other for number, other in kept if number > self.number]
            if left:
                await self._disk.leave_checkpoints(self._run, left)
            await self._disk.save_checkpoint(checkpoint, superseded)
            self.tip = tip

    async def write_learned(self) -> None:
        """What waits, for the first round after a restart. Raises `DiskFull`."""
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
                residue=np.zeros_like(self.learned),
                samples=self.samples,
                displacement=self.learned,
                drawn=self.drawn,
            )
        )
