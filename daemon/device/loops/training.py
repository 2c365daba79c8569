"""Trains: makes steps from an anchor along a lane, and returns the work as a delta.

Worker process only. This module uses no sockets.

Work (delta, samples, loss) counts from the parameters at the last `train`, or at the last hand-over
that the node received (`uncollected_work.py`). A stretch, which progress reports, counts from the
last `train`, `resume` or `shift`. A batch that raises, or whose loss or gradient is not finite,
changes nothing and is counted (`bad_batches.py`).

Two threads call a loop. One trains: it makes the steps and obeys most commands, between two steps.
The other one only hands over, shifts and copies the optimizer's state, at any time: the parameters
do not change while a step computes its gradient. The update at the end of a step, its bookkeeping
and all commands hold `lock`.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import RLock
from time import monotonic

import numpy as np
import torch

from daemon.device.loops.bad_batches import BadBatches
from daemon.device.loops.batch_gradient import BatchGradient
from daemon.device.loops.batch_parts import BatchParts
from daemon.device.loops.batches import checked_size
from daemon.device.loops.draw_order import DrawOrder
from daemon.device.loops.results import ModelResults
from daemon.device.loops.scorer import HeldOutScorer
from daemon.device.loops.stretch import Stretch
from daemon.device.loops.uncollected_work import UncollectedWork
from daemon.device.loops.work_totals import WorkTotals
from daemon.device.messages import ExportModel, SampleModel
from daemon.device.model.author_code import SampleFault
from daemon.device.model.flat_model import FlatModel
from daemon.device.model.guard import ModelGuard
from daemon.device.optimizers.choice import make_optimizer
from daemon.device.processor import Device
from daemon.device.settings import Job
from daemon.device.shared_memory import SharedMemory
from daemon.device.side_stream import SideStream
from daemon.device.tasks.description import describe_task, seed_everything
from daemon.device.tasks.held_out import split_of
from daemon.device.tasks.task import Task
from protocol.averaging.vector_layout import Vector
from protocol.digest import digest
from protocol.ports.trainer import Evaluation, GroupLosses, HeldOutShare, Lane, Progress
from protocol.run.data_order import sample_indices
from protocol.run.initial_parameters import GIVEN
from protocol.run.schedule import learning_rate_factor
from protocol.run.task_digest import TaskDigest


class TrainingLoop:
    """Owns the model, the optimizer and the position in the data."""

    def __init__(self, task: Task, device: Device, job: Job, *, most_at_once: int = 0) -> None:
        """`most_at_once` limits the samples that are computed at once; 0 means no limit."""
        self._task = task
        self._device = device
        self._job = job
        self._batch = job.inner.step_samples
        self.split = split_of(task, checked_size(task), holds_out=job.holds_out)
        seed_everything(job.seed)
        self._net = FlatModel(task, device.torch)
        device.compile(self._net.model)
        self._guard = ModelGuard(self._net, task)
        size = job.inner.batch_size
        self.parts = BatchParts(min(size, most_at_once or size), job.batch_part)
        self._gradient = BatchGradient(task, device, self._net, self._guard, self.parts)
        self._scorer = HeldOutScorer(task, device, self._net, self.split, job.seed)
        self._results = ModelResults(task, device, self._net, self.split, job.seed)
        self.bad = BadBatches()
        self._optimizer = make_optimizer(self._net, job.inner, task)
        self.lock = RLock()
        self._side = SideStream(device)
        self._work = UncollectedWork(self._net.flat)
        self._order = DrawOrder(self._batch)
        self._stretch = Stretch()
        self.anchored = False
        # When the step in progress began, or None between two steps.
        self._step_began_s: float | None = None
        self.longest_step_s = 0.0
        self.specs = self._net.specs
        self.moved = self._net.moved
        self.parameters = self._net.flat.numel()
        self.inner_size = self._optimizer.state_size

    def describe(self) -> TaskDigest:
        """Describe the task for the other members. Call once, before training."""
        return describe_task(self._task, self._net, self._job.task, self.split, self._job.seed)

    def share(self, buffers: SharedMemory) -> None:
        """Set the shared memory, from which anchors come and to which deltas go."""
        self._anchor, self._delta = _tensor(buffers.anchor), _tensor(buffers.delta)
        self._inner, self._scored = _tensor(buffers.inner), _tensor(buffers.scored)
        # The node reads the values that the task gives before it writes an anchor there.
        if any(spec.init == GIVEN for spec in self.specs):
            self._anchor.copy_(self._net.flat)

    @property
    def drawn(self) -> int:
        """The samples that were drawn from the lane."""
        return self._order.drawn

    @property
    def training(self) -> bool:
        """Whether steps are left."""
        return self._stretch.training

    # ---------------------------------------------------- commands to the thread that trains

    def train(self, lane: Lane, max_steps: int | None, *, position: int = 0) -> None:
        """Begin to train from the shared anchor.

        Raises `ValueError`, and changes nothing, for an impossible lane.
        """
        self._order.check(lane)
        with self.lock:
            self._settle()
            self._work.place(self._anchor)
            self._side.updated()
            self.anchored = True
            self._order.begin(lane, position)
            # A task's random numbers, as for dropout, are replayable: they follow from node and
            # lane.
            place = f"{self._job.seed}/{self._job.peer}/{lane.base}/{lane.index}/{lane.stride}"
            torch.manual_seed(
                int.from_bytes(digest(b"hypergpu/task-noise/1\0", place.encode())[:8], "little")
            )
            self._stretch.begin(max_steps)

    def resume(self, lane: Lane, max_steps: int | None, *, position: int | None = None) -> None:
        """Continue to train. The same lane continues where it was.

        Raises `ValueError` for an impossible lane.
        """
        self._order.check(lane)
        with self.lock:
            self._settle()
            self._order.go_on(lane, position)
            self._stretch.begin(max_steps)

    def pause(self) -> WorkTotals:
        """Pause, and write the delta of the work into the shared memory.

        Drops the work where its delta is not finite.

        Raises `TaskFault` where the model has changed in a way that the averages would miss.
        """
        with self.lock:
            if self._work.fresh.steps:
                self._guard.check_hand_over()
            self._stretch.end()
            self._settle()
            work = self._work.hand_over(paused=True)
            return work if self._work.write_delta(work, self._delta) else self._drop_all()

    def acknowledge(self, received: bool) -> None:
        """Count from the last hand-over, if the node received it.

        Otherwise its work stays part of the next one.
        """
        with self.lock:
            self._side.join()
            self._work.acknowledge(received)
            self._side.updated()

    def drop(self) -> int:
        """Undo the work since the last hand-over, and pause. Returns the samples that are lost."""
        with self.lock:
            lost = self._work.drop_fresh()
            self._stretch.end()
            self._settle()
            return lost

    def load_inner(self) -> None:
        """Read the inner optimizer's state from the shared memory.

        Raises `ValueError`, and changes nothing, for an impossible state.
        """
        with self.lock:
            self._settle()
            self._optimizer.load(self._inner)
            self._side.updated()

    def evaluate(self, share: HeldOutShare) -> Evaluation:
        """Score the parameters in the shared memory. Raises `ScoringFault`."""
        return self._scorer.score(self._scored, share)

    def sample(self, wanted: SampleModel) -> tuple[str, ...]:
        """Write samples with the parameters in the shared memory. Raises `ResultFault`."""
        return self._results.sample(self._scored, wanted)

    def export(self, wanted: ExportModel) -> tuple[str, ...]:
        """Write the model with the parameters in the shared memory. Raises `ResultFault`."""
        return self._results.export(self._scored, wanted)

    def group_losses(self, groups: Sequence[Sequence[int]]) -> GroupLosses:
        """Measure the loss of groups of training samples at the shared parameters.

        `groups` are positions in the run's order. Raises `ScoringFault`.
        """
        positions = np.array(groups, dtype=np.int64)
        indices = sample_indices(self._job.seed, self.split.trained, positions.reshape(-1))
        return self._scorer.group_losses(self._scored, indices.reshape(positions.shape))

    # ------------------------------------------------------------- commands to the other thread

    def hand_over(
        self, lane: Lane, *, position: int | None, received: bool
    ) -> tuple[WorkTotals, int]:
        """Write the delta of the finished steps into the shared memory, and train on.

        Also returns the samples that were drawn from the lane before. Drops the work where its
        delta is not finite.

        Raises `ValueError`, and changes nothing, for an impossible lane.
        """
        self._order.check(lane)
        with self.lock, self._side.beside_training():
            self._work.acknowledge(received)
            work, drawn = self._work.hand_over(paused=False), self._order.drawn
            self._order.go_on(lane, position)
        with self._side.copying():
            is_finite = self._work.write_delta(work, self._delta)
        if is_finite:
            return work, drawn
        with self.lock, self._side.beside_training():
            return self._drop_all(), drawn

    def shift(self, lane: Lane, max_steps: int | None, *, position: int, received: bool) -> None:
        """Move to the parameters in the shared anchor at the end of the step in progress.

        Steps since the last hand-over go with it, and training goes on.

        Raises `ValueError`, and changes nothing, for an impossible lane.
        """
        self._order.check(lane)
        with self.lock, self._side.beside_training():
            self._work.acknowledge(received)
            self._work.shift(self._anchor)
            if self._step_began_s is None:
                self._settle()
            self._order.go_on(lane, position + self._work.samples)
            self._stretch.begin(max_steps)

    def save_inner(self) -> bool:
        """Write the inner optimizer's state after the last step into the shared memory.

        Returns False, and writes nothing, while values that are not finite wait to be dropped.
        """
        with self.lock, self._side.beside_training():
            if not self._work.diverged:
                self._optimizer.save(self._inner)
            return not self._work.diverged

    # ------------------------------------------------------------------------------------ steps

    def step(self) -> None:
        """Train on one batch.

        Raises `SampleFault` for a batch that cannot be used. Only the position in the data has then
        changed. Raises `TaskFault`.
        """
        with self.lock:
            self._step_began_s = began_s = monotonic()
            positions, position = self._order.draw(), self._order.position
        indices = sample_indices(self._job.seed, self.split.trained, positions)
        try:
            loss, norm = self._gradient.compute(indices)
        except SampleFault as fault:
            self.bad.add(positions, indices, fault, lambda: self._gradient.culprit(indices))
            with self.lock:
                self._end_step()
            raise
        self.bad.used()
        self.parts.used()
        with self.lock:
            self._side.join()
            self._optimizer.step(norm, learning_rate_factor(self._job.inner, position))
            self._count(loss, monotonic() - began_s)
            self._end_step()
        self._device.pace()

    def _count(self, loss: float, took_s: float) -> None:
        step = WorkTotals(steps=1, samples=self._batch, loss_sum=loss * self._batch, seconds=took_s)
        self._work.add(step)
        self._stretch.add(step)
        self._order.position += self._batch
        self.longest_step_s = max(self.longest_step_s, took_s)

    def _end_step(self) -> None:
        self._step_began_s = None
        self._settle()

    def progress(self) -> Progress:
        """Return the progress of this stretch. `loss` is the mean since the last call.

        The loss is not finite after a divergence.
        """
        with self.lock:
            return self._stretch.progress()

    def step_s(self) -> float:
        """How long the step in progress has taken so far; 0 between two steps."""
        with self.lock:
            return monotonic() - self._step_began_s if self._step_began_s is not None else 0.0

    def _settle(self) -> None:
        """Make the moves that wait for the end of a step."""
        self._side.join()
        if self._work.settle():
            # A value that is not finite would never leave the optimizer's averages.
            self._optimizer.reset()
        self._side.updated()

    def _drop_all(self) -> WorkTotals:
        """Drop all work, and pause. The parameters return to where it began, between two steps."""
        lost = self._work.drop_all()
        self._stretch.end()
        if self._step_began_s is None:
            self._settle()
        self._delta.numpy().fill(0)
        return WorkTotals(dropped=lost)


def _tensor(shared: Vector) -> torch.Tensor:
    return torch.from_numpy(np.asarray(shared))
