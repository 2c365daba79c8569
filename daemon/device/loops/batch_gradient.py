"""Computes the gradient of one step with the task's code, and checks both. Worker process only.

A step computes its samples in parts (`batch_parts.py`), and sums their gradients. Each part weighs
as much as its share of the tokens, where the task counts tokens, or else of the samples. So the
gradient is that of the mean over the whole step, however the step is divided.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

import numpy as np
import numpy.typing as npt
import torch

from daemon.device.loops.batch_parts import BatchParts
from daemon.device.loops.batches import checked_batch, checked_loss, checked_tokens
from daemon.device.loops.culprit import find_culprit
from daemon.device.loops.loss_scale import LossScale
from daemon.device.model.author_code import (
    AuthorFault,
    MemoryShort,
    SampleFault,
    TaskFault,
    author_code,
    memory_short,
)
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

# What torch and Python raise where memory is short (`memory_short`), and for other reasons.
ALLOCATORS = (MemoryError, RuntimeError, OSError)

Indices = npt.NDArray[np.int64]


class _Overflow(Exception):
    """The scaled gradient has values that float16 does not have."""


class BatchGradient:
    """Computes gradients into the model's flat `grad`."""

    def __init__(
        self, task: Task, device: Device, net: FlatModel, guard: ModelGuard, parts: BatchParts
    ) -> None:
        self._task, self._device, self._net, self._guard = task, device, net, guard
        self._parts = parts
        self._scale = LossScale(enabled=device.scales_loss)
        # The calls of the task's loss in this process.
        self._calls = 0
        # When the whole model was checked last.
        self._watched_s = 0.0
        # The time of all gradients, and that of comparisons by content.
        self._seconds = 0.0
        self._compared_seconds = 0.0

    def compute(self, indices: Indices) -> tuple[float, float]:
        """Compute the gradient at the samples `indices`, shape (samples,).

        Returns the mean loss, and the norm of the gradient. Begins again with smaller parts while
        memory is short.

        Raises `SampleFault` for a step that cannot be used, `TaskFault`, and `MemoryShort` where
        one sample needs more memory than the device has.
        """
        while True:
            try:
                with self._net.statistics_restored(AuthorFault, MemoryShort, *ALLOCATORS):
                    return self._attempt(indices)
            except MemoryShort:
                if not self._parts.halve():
                    raise
            except ALLOCATORS as error:
                if memory_short("training", error) is None or not self._parts.halve():
                    raise
            # The error's frames held the graph until here.
            self._net.forget_grad()
            gc.collect()
            self._device.free_memory()

    def _attempt(self, indices: Indices) -> tuple[float, float]:
        began_s = monotonic()
        while True:
            try:
                with self._net.statistics_restored(_Overflow):
                    value, norm = self._sum_of_parts(indices)
                    if not math.isfinite(norm) and self._scale.overflowed():
                        raise _Overflow
                break
            except _Overflow:
                continue
        if not math.isfinite(value):
            raise SampleFault(f"The loss is {value}")
        if not math.isfinite(norm):
            raise SampleFault(f"The gradient's norm is {norm}")
        self._scale.used()
        self._compare()
        self._seconds += monotonic() - began_s
        return value, norm

    def _sum_of_parts(self, indices: Indices) -> tuple[float, float]:
        """Return the mean loss and the gradient's norm. Both may be not finite."""
        watched = self._calls < WATCHED_STEPS or monotonic() - self._watched_s > WATCH_S
        divided = self._parts.of(indices)
        batches = [self._batch(part) for part in divided]
        weights = self._weights(batches, divided)
        (self._net.forget_grad if watched else self._net.zero_grad)()
        losses: list[torch.Tensor] = []
        for number, weight in enumerate(weights):
            # A part's tensors are dropped once they were used.
            batch, batches[number] = batches[number], ()
            losses.append(self._backward(batch, weight, watched=watched and number == 0))
        norm = self._net.grad_norm().double()
        if self._scale.scale != 1.0:
            self._net.grad.mul_(1 / self._scale.scale)
            norm = norm / self._scale.scale
        # Waits for the device, as torch's GradScaler does at each step.
        total, norm_value = torch.stack([sum(losses[1:], losses[0]).to(norm.device), norm]).tolist()
        return float(total), float(norm_value)

    def _batch(self, indices: Indices) -> Sequence[torch.Tensor]:
        with author_code("batch()", SampleFault):
            return checked_batch(self._task, self._task.batch(indices), len(indices))

    def _weights(
        self, batches: Sequence[Sequence[torch.Tensor]], divided: Sequence[Indices]
    ) -> list[float]:
        """Return the share of each part in the step, which add up to 1."""
        if len(batches) == 1:
            return [1.0]
        counts = [checked_tokens(self._task, batch) for batch in batches]
        if not all(counts):
            if any(counts):
                # A part without a single label has no mean.
                raise SampleFault("Some samples have no token that counts")
            counts = [len(part) for part in divided]
        return [count / sum(counts) for count in counts]

    def _backward(
        self, batch: Sequence[torch.Tensor], weight: float, *, watched: bool
    ) -> torch.Tensor:
        """Add the gradient of one part to `grad`. Returns the part's share of the mean loss."""
        batch = self._device.put(batch)
        with _compiled_code(), author_code("loss()", SampleFault):
            with self._device.autocast():
                loss = checked_loss(self._task, self._task.loss(self._net.model, batch))
            if watched:
                self._guard.check_model()
                self._guard.check_graph(loss)
                self._watched_s = monotonic()
            factor = weight * self._scale.scale
            (loss if factor == 1.0 else loss * factor).backward()  # type: ignore[no-untyped-call]
        self._calls += 1
        self._guard.check_moved()
        if not self._net.gather_grad():
            raise TaskFault(
                "The loss depends on no parameter of the model",
                fix="compute it with the model that loss() gets",
            )
        return loss.detach().double() * weight

    def culprit(self, indices: Indices) -> int | None:
        """Return the place in the batch of a sample that fails alone, or None."""
        with self._net.statistics_restored():
            return find_culprit(self._task, self._device, self._net.model, indices)

    def _compare(self) -> None:
        """Compare the model with its contents, as often as `COMPARE_SHARE` allows.

        A hand-over in the midst of a later step then has no step whose model had changed.
        """
        began_s = monotonic()
        if self._compared_seconds <= COMPARE_SHARE * self._seconds:
            self._guard.check_hand_over()
            self._compared_seconds += monotonic() - began_s


@contextmanager
def _compiled_code() -> Iterator[None]:
    """Turn a failure of torch's compiler into a `TaskFault`: no batch causes it."""
    try:
        yield
    except SampleFault as fault:
        cause = fault.__cause__
        if not type(cause).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        raise TaskFault(
            f"torch.compile cannot compile the model: {str(cause).strip().splitlines()[0]}",
            fix="set compile = false under [worker] in config.toml, or change forward()",
            trace=fault.trace,
        ) from fault
