"""One member of a measured run: the worker's training loop, with the node's ledger."""

from __future__ import annotations

import numpy as np

from daemon.device import shared_memory
from daemon.device.loops.training import TrainingLoop
from daemon.device.model.author_code import SampleFault
from daemon.device.processor import Device
from daemon.device.settings import Job, WorkerSettings
from daemon.device.tasks.catalog import load_task
from protocol.averaging.vector_layout import Vector
from protocol.certificates.tip import Tip
from protocol.codec import codec_named
from protocol.contribution.ledger import Ledger
from protocol.identity import Signer
from protocol.messages.offer import DataStretch
from protocol.ports.trainer import Lane, Positions
from protocol.run.manifest_parts import Limits
from simulator.bench.audits.cases import AuditCase

SETTINGS = WorkerSettings(device="cpu", threads=1)
SEED = 3
# No cap: a measured member's claims are true.
_MAX_SAMPLES = 1 << 40


class Member:
    """A member's training loop and ledger, in this process."""

    def __init__(self, case: AuditCase, number: int) -> None:
        self.peer = Signer(bytes([number + 1]) * 32).peer
        self._batch = case.inner.batch_size
        job = Job(
            task=case.task,
            task_options=case.options,
            seed=SEED,
            inner=case.inner,
            peer=self.peer,
            holds_out=True,
        )
        self.loop = TrainingLoop(
            load_task(case.task, case.options, SETTINGS), Device(SETTINGS), job
        )
        fd = shared_memory.create()
        shared_memory.give_size(fd, self.loop.parameters, self.loop.inner_size)
        self._memory = shared_memory.SharedMemory(fd, self.loop.parameters, self.loop.inner_size)
        self.loop.share(self._memory)
        self.ledger = Ledger(
            self.loop.parameters,
            codec_named(case.codec),
            _MAX_SAMPLES,
            Limits().max_carry_rounds,
        )
        # The used samples of the present tip's reserve.
        self._reserve_used = 0

    def train(self, tip: Tip, anchor: Vector, steps: int, *, exchanges: bool = False) -> None:
        """Add `steps` steps to the ledger: of the round's lane, or of the exchange's reserve."""
        local = self.ledger.local
        start = anchor if local is None else anchor - local
        count = steps * self._batch
        if exchanges:
            lane = tip.reserve_lane(self.peer).after(self._reserve_used)
            first = self._reserve_used
            self._reserve_used += count
        else:
            lane = tip.lane(self.peer).after(self.ledger.drawn)
            first = tip.reserve + self.ledger.drawn
        self.ledger.add(
            self.displacement(start, lane, steps, tip.samples),
            count,
            drawn=0 if exchanges else count,
            stretch=DataStretch(tip=tip.hash, first=first, count=count),
        )

    def displacement(self, start: Vector, lane: Lane, steps: int, position: int) -> Vector:
        """Return the displacement of `steps` steps from `start` along `lane`."""
        self._memory.anchor[:] = start
        self.loop.train(lane, steps, position=position)
        while self.loop.training:
            try:
                self.loop.step()
            except SampleFault:
                continue
        self.loop.pause()
        return self._memory.delta.copy()

    def settle(self, *, listed: bool) -> None:
        """Settle the certificate of the round, which lists this member's offer or does not."""
        self.ledger.settle(self.ledger.offer.seq if listed else None)
        self._reserve_used = 0

    def restart(self) -> None:
        """Forget what a node does not keep on its disk: which samples the work was trained on."""
        self.ledger.data.drop()

    def losses(self, parameters: Vector, groups: Positions) -> np.ndarray:
        """Return the mean loss of each group of positions, shape (groups,)."""
        self._memory.scored[:] = parameters
        return np.array(self.loop.group_losses(groups.tolist()).losses)
