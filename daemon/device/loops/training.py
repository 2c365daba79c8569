"""Trains: makes steps from an anchor along a lane, and returns the work as a delta.

Worker process only. This module uses no sockets.

Work (delta, samples, loss) counts from `_start`: the parameters at the last `train`, or at the last
hand-over that the node received. A stretch, which progress reports, counts from the last `train` or
`resume`. A batch that raises, or whose loss or gradient is not finite, changes nothing and is
counted (`bad_batches.py`).
"""

from __future__ import annotations

import math
from time import monotonic

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from daemon.device.loops.adamw import AdamW
from daemon.device.loops.bad_batches import BadBatches
from daemon.device.loops.batches import checked_batch, checked_loss, checked_size
from daemon.device.loops.culprit import find_culprit
from daemon.device.model.author_code import SampleFault, TaskFault, author_code
from daemon.device.model.flat_model import FlatModel
from daemon.device.model.guard import ModelGuard
from daemon.device.processor import Device
from daemon.device.settings import Job
from daemon.device.shared_memory import SharedMemory
from daemon.device.tasks.description import describe_task, seed_everything
from daemon.device.tasks.task import Task
from protocol.averaging.vector_layout import Vector
from protocol.digest import digest
from protocol.ports.trainer import Lane, Progress
from protocol.run.data_order import lane_positions, sample_indices
from protocol.run.task_digest import TaskDigest

# A task builds its caches at its first calls, so the model is checked at each of them.
WATCHED_STEPS = 3
# Between two checks of the whole model after that. A check takes 1 ms for a thousand tensors.
WATCH_S = 0.5


class WorkTotals(msgspec.Struct, frozen=True, kw_only=True):
    """The totals of a hand-over. The shared memory holds the delta."""

    samples: int
    steps: int
    loss: float | None
    seconds: float


class TrainingLoop:
    """Owns the model, the optimizer and the position in the data.

    One thread calls it. Every method ends between two steps.
    """

    def __init__(self, task: Task, device: Device, job: Job) -> None:
        self._task = task
        self._device = device
        self._job = job
        self._batch = job.inner.batch_size
        self.dataset_size = checked_size(task)
        seed_everything(job.seed)
        self._net = FlatModel(task, device.torch)
        self._guard = ModelGuard(self._net, task)
        self.bad = BadBatches()
        # The calls of the task's loss in this process.
        self._calls = 0
        # When the whole model was checked last.
        self._watched_s = 0.0
        self._optimizer = AdamW(self._net, job.inner)
        self._start = torch.zeros_like(self._net.flat)
        # In float64 and on the device, so that rare reads change neither the value nor the speed.
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=device.torch)
        self._lane = Lane(base=0, index=0, stride=1)
        # The samples of the lane that were used.
        self._drawn = 0
        self._anchored = False
        # None means no limit.
        self._steps_left: int | None = 0
        # The steps and seconds of the work.
        self._steps = 0
        self._seconds = 0.0
        self._stretch_steps = 0
        self._stretch_seconds = 0.0
        # The work's steps and loss when the loss was last read.
        self._reported_steps = 0
        self._reported_loss = 0.0
        self.longest_step_s = 0.0
        self.specs = self._net.specs
        self.parameters = self._net.flat.numel()
        self.inner_size = self._optimizer.state_size

    def describe(self) -> TaskDigest:
        """Describe the task for the other members. Call once, before training."""
        return describe_task(
            self._task, self._net, self._job.task, self.dataset_size, self._job.seed
        )

    def share(self, buffers: SharedMemory) -> None:
        """Set the shared memory, from which anchors come and to which deltas go."""
        self._anchor, self._delta, self._inner = (
            _tensor(part) for part in (buffers.anchor, buffers.delta, buffers.inner)
        )

    @property
    def training(self) -> bool:
        """Whether steps are left."""
        return self._steps_left is None or self._steps_left > 0

    @property
    def anchored(self) -> bool:
        return self._anchored

    def train(self, lane: Lane, max_steps: int | None) -> None:
        """Begin to train from the shared anchor.

        Raises `ValueError`, and changes nothing, for an impossible lane.
        """
        lane_positions(lane, 0, self._batch)
        self._net.flat.copy_(self._anchor)
        self._anchored = True
        self._lane, self._drawn = lane, 0
        # A task's random numbers, as for dropout, are replayable: they follow from node and lane.
        place = f"{self._job.seed}/{self._job.peer}/{lane.base}/{lane.index}/{lane.stride}"
        torch.manual_seed(
            int.from_bytes(digest(b"hypergpu/task-noise/1\0", place.encode())[:8], "little")
        )
        self.rebase()
        self._begin_stretch(max_steps)

    def resume(self, lane: Lane, max_steps: int | None) -> None:
        """Continue to train. The same lane continues where it was.

        Raises `ValueError` for an impossible lane.
        """
        lane_positions(lane, 0, self._batch)
        if lane != self._lane:
            self._lane, self._drawn = lane, 0
        self._begin_stretch(max_steps)

    def pause(self) -> WorkTotals:
        """Pause, and write the delta of the work into the shared memory.

        Raises `TaskFault` where the model has changed in a way that the averages would miss.
        """
        if self._steps:
            self._guard.check_hand_over()
        waited, was_training = monotonic(), self.training
        self._steps_left = 0
        self._delta.copy_(self._start - self._net.flat)
        # Reading the sum waits for the device.
        loss_sum = float(self._loss_sum)
        if was_training:
            self._seconds += monotonic() - waited
        samples = self._steps * self._batch
        return WorkTotals(
            samples=samples,
            steps=self._steps,
            loss=loss_sum / samples if samples else None,
            seconds=self._seconds,
        )

    def finite(self) -> bool:
        """Whether all values of the delta and the loss are finite."""
        return bool(torch.isfinite(self._delta).all()) and bool(torch.isfinite(self._loss_sum))

    def rebase(self) -> None:
        """Let work count from the current parameters."""
        self._start.copy_(self._net.flat)
        self._forget()

    def drop(self) -> WorkTotals:
        """Undo the work and pause.

        This also resets the optimizer: a value that is not finite would never leave its averages.
        """
        self._net.flat.copy_(self._start)
        self._optimizer.reset()
        self._delta.zero_()
        self._forget()
        self._steps_left = 0
        return WorkTotals(samples=0, steps=0, loss=None, seconds=0.0)

    def save_inner(self) -> None:
        """Write the inner optimizer's state into the shared memory."""
        self._optimizer.save(self._inner)

    def load_inner(self) -> None:
        """Read the inner optimizer's state from the shared memory.

        Raises `ValueError`, and changes nothing, for an impossible state.
        """
        self._optimizer.load(self._inner)

    def step(self) -> None:
        """Train on one batch.

        Raises `SampleFault` for a batch that cannot be used. Only the position in the data has then
        changed. Raises `TaskFault`.
        """
        began = monotonic()
        positions = lane_positions(self._lane, self._drawn, self._batch)
        self._drawn += self._batch
        indices = sample_indices(self._job.seed, self.dataset_size, positions)
        try:
            loss = self._learn(indices)
        except SampleFault as fault:
            self.bad.add(
                positions,
                indices,
                fault,
                lambda: find_culprit(self._task, self._device, self._net.model, indices),
            )
            raise
        self.bad.used()
        self._loss_sum += loss.double() * self._batch
        self._device.pace()
        self._steps += 1
        self._stretch_steps += 1
        if self._steps_left is not None:
            self._steps_left -= 1
        took = monotonic() - began
        self._seconds += took
        self._stretch_seconds += took
        self.longest_step_s = max(self.longest_step_s, took)

    def _learn(self, indices: npt.NDArray[np.int64]) -> torch.Tensor:
        """Make the optimizer's step for one batch, and return the batch's loss."""
        watched = self._calls < WATCHED_STEPS or monotonic() - self._watched_s > WATCH_S
        with author_code("batch()", SampleFault):
            batch = checked_batch(self._task, self._task.batch(indices), len(indices))
            batch = self._device.put(batch)
        (self._net.forget_grad if watched else self._net.zero_grad)()
        with author_code("loss()", SampleFault):
            with self._device.autocast():
                loss = checked_loss(self._task, self._task.loss(self._net.model, batch))
            if watched:
                self._guard.check_model()
                self._guard.check_graph(loss)
                self._watched_s = monotonic()
            loss.backward()  # type: ignore[no-untyped-call]
        self._calls += 1
        self._guard.check_moved()
        if not self._net.gather_grad():
            raise TaskFault(
                "The loss depends on no parameter of the model",
                fix="compute it with the model that loss() gets",
            )
        size = self._net.grad_norm().double()
        # Waits for the device, as torch's GradScaler does at each step.
        value, norm = torch.stack([loss.detach().double().to(size.device), size]).tolist()
        if not math.isfinite(value):
            raise SampleFault(f"The loss is {value}")
        if not math.isfinite(norm):
            raise SampleFault(f"The gradient's norm is {norm}")
        self._optimizer.step()
        return loss.detach()

    def progress(self) -> Progress:
        """Return the progress of this stretch. Waits for the device.

        `loss` is the mean since the last call. It is not finite after a divergence.
        """
        new = (self._steps - self._reported_steps) * self._batch
        total = float(self._loss_sum)
        loss = (total - self._reported_loss) / new if new else None
        self._reported_steps, self._reported_loss = self._steps, total
        samples = self._stretch_steps * self._batch
        rate = samples / self._stretch_seconds if self._stretch_seconds else 0.0
        return Progress(
            steps=self._stretch_steps, samples=samples, loss=loss, samples_per_second=rate
        )

    def _begin_stretch(self, max_steps: int | None) -> None:
        self._steps_left = max_steps
        self._stretch_steps, self._stretch_seconds = 0, 0.0

    def _forget(self) -> None:
        self._steps, self._seconds = 0, 0.0
        self._loss_sum.zero_()
        self._reported_steps, self._reported_loss = 0, 0.0


def _tensor(shared: Vector) -> torch.Tensor:
    return torch.from_numpy(np.asarray(shared))
