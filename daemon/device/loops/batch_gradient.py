"""Computes the gradient of one batch with the task's code, and checks both. Worker process only."""

from __future__ import annotations

import math
from time import monotonic

import numpy as np
import numpy.typing as npt
import torch

from daemon.device.loops.batches import checked_batch, checked_loss
from daemon.device.loops.culprit import find_culprit
from daemon.device.model.author_code import SampleFault, TaskFault, author_code
from daemon.device.model.flat_model import FlatModel
from daemon.device.model.guard import ModelGuard
from daemon.device.processor import Device
from daemon.device.tasks.task import Task

# A task builds its caches at its first calls, so the model is checked at each of them.
WATCHED_STEPS = 3
# Between two checks of the whole model after that. A check takes 1 ms for a thousand tensors.
WATCH_S = 0.5
# The share of the time for comparisons of the model's constants by content. A comparison takes at
# most 10 ms, so it comes at each step of a second or more.
COMPARE_SHARE = 0.01


class BatchGradient:
    """Computes gradients into the model's flat `grad`."""

    def __init__(self, task: Task, device: Device, net: FlatModel, guard: ModelGuard) -> None:
        self._task, self._device, self._net, self._guard = task, device, net, guard
        # The calls of the task's loss in this process.
        self._calls = 0
        # When the whole model was checked last.
        self._watched_s = 0.0
        # The time of all gradients, and that of comparisons by content.
        self._seconds = 0.0
        self._compared_seconds = 0.0

    def compute(self, indices: npt.NDArray[np.int64]) -> tuple[float, float]:
        """Compute the gradient at the samples `indices`, shape (batch,).

        Returns the batch's loss, and the norm of the gradient.

        Raises `SampleFault` for a batch that cannot be used, and `TaskFault`.
        """
        began_s = monotonic()
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
        self._compare()
        self._seconds += monotonic() - began_s
        return float(value), float(norm)

    def culprit(self, indices: npt.NDArray[np.int64]) -> int | None:
        """Return the place in the batch of a sample that fails alone, or None."""
        return find_culprit(self._task, self._device, self._net.model, indices)

    def _compare(self) -> None:
        """Compare the model with its contents, as often as `COMPARE_SHARE` allows.

        A hand-over in the midst of a later step then has no step whose model had changed.
        """
        began_s = monotonic()
        if self._compared_seconds <= COMPARE_SHARE * self._seconds:
            self._guard.check_hand_over()
            self._compared_seconds += monotonic() - began_s
