"""Scores parameters on held-out or on named samples, between two steps. Worker process only.

The model computes with other memory meanwhile, so the parameters that are trained stay as they are:
a hand-over at the same time is not disturbed.
"""

from __future__ import annotations

import gc
import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic

import numpy as np
import numpy.typing as npt
import torch

from daemon.device.loops.batches import checked_batch
from daemon.device.loops.exported_form import as_exported
from daemon.device.model.author_code import (
    AuthorFault,
    MemoryShort,
    SampleFault,
    author_code,
    place_of,
)
from daemon.device.model.flat_model import FlatModel
from daemon.device.processor import Device
from daemon.device.tasks.description import seed_everything
from daemon.device.tasks.held_out import DataSplit
from daemon.device.tasks.task import Task
from protocol.ports.trainer import Evaluation, GroupLosses, HeldOutShare

Groups = npt.NDArray[np.int64]


class ScoringFault(Exception):
    """The task cannot score. `what` names the file and the line, `trace` may be empty."""

    def __init__(self, what: str, trace: str = "") -> None:
        super().__init__(what)
        self.what, self.trace = what, trace


class HeldOutScorer:
    """Calls a task's `evaluate`, and leaves training as it was."""

    def __init__(
        self, task: Task, device: Device, net: FlatModel, split: DataSplit, seed: int
    ) -> None:
        self._task, self._device, self._net = task, device, net
        self._split, self._seed = split, seed

    def score(self, parameters: torch.Tensor, share: HeldOutShare) -> Evaluation:
        """Score the vector `parameters`, shape (parameters,), on the CPU.

        Every node and every call draws the same random numbers. Where memory is short, fewer
        samples are scored at a time. Raises `ScoringFault`.
        """
        began_s = monotonic()
        indices = self._split.share(share)
        if not len(indices):
            raise ScoringFault(
                f"share {share.index} of {share.count} has no held-out samples:"
                f" {self._split.held_out} of {self._split.total:,} samples are held out"
            )
        self._task.held_out_indices = indices
        while True:
            try:
                figures = self._figures(parameters)
                break
            except ScoringFault as fault:
                if not isinstance(fault.__cause__, MemoryShort) or self._task.scored_at_once == 1:
                    raise
            # The error's frames held tensors until here.
            self._task.scored_at_once = max(1, self._task.scored_at_once // 2)
            gc.collect()
            self._device.free_memory()
        loss = figures.pop("loss")
        return Evaluation(
            loss=loss,
            metrics=tuple(sorted(figures.items())),
            samples=len(indices),
            seconds=monotonic() - began_s,
        )

    def _figures(self, parameters: torch.Tensor) -> dict[str, float]:
        """Return the task's figures of the held-out samples. Raises `ScoringFault`."""
        with (
            self._scoring(parameters, "evaluate()"),
            as_exported(self._task, self._net.model),
        ):
            return self._checked(self._task.evaluate(self._net.model))

    def group_losses(self, parameters: torch.Tensor, groups: Groups) -> GroupLosses:
        """Measure the mean loss of each group of samples at the vector `parameters`.

        `groups` are sample indices, shape (groups, samples). Raises `ScoringFault`.
        """
        began_s = monotonic()
        losses: list[float] = []
        with self._scoring(parameters, "loss()"):
            for indices in groups:
                batch = checked_batch(self._task, self._task.batch(indices.copy()), len(indices))
                loss = self._task.loss(self._net.model, self._device.put(batch))
                losses.append(float(loss))
        return GroupLosses(losses=tuple(losses), seconds=monotonic() - began_s)

    @contextmanager
    def _scoring(self, parameters: torch.Tensor, method: str) -> Iterator[None]:
        """Let the task score `parameters` inside the block, and leave training as it was."""
        vector = parameters.to(self._device.torch)
        try:
            with (
                self._net.computing_with(vector),
                evaluating(self._net.model),
                same_random_numbers(self._device),
                torch.no_grad(),
                self._device.autocast(),
                author_code(method, SampleFault),
            ):
                seed_everything(self._seed)
                yield
        except (AuthorFault, MemoryShort) as fault:
            raise ScoringFault(fault.what, fault.trace) from fault

    def _checked(self, scores: object) -> dict[str, float]:
        place = place_of(self._task.evaluate)
        if not isinstance(scores, Mapping) or "loss" not in scores:
            keys = f" with {', '.join(map(str, scores))}" if isinstance(scores, Mapping) else ""
            raise SampleFault(
                f'{place} returned a {type(scores).__name__}{keys}, not a dict with a "loss"'
            )
        figures: dict[str, float] = {}
        for name, value in scores.items():
            try:
                figures[str(name)] = float(value)
            except (TypeError, ValueError):
                raise SampleFault(
                    f"{place} returned {str(name)!r} = a {type(value).__name__}, not a number"
                ) from None
        if not math.isfinite(figures["loss"]):
            raise SampleFault(f"{place} returned a loss of {figures['loss']}")
        return figures


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Set the model to eval mode, and each of its modules back to its own mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def same_random_numbers(device: Device) -> Iterator[None]:
    """Continue the random numbers of torch, numpy and `random` afterwards where they were."""
    of_numpy, of_random = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[device.torch] if device.cuda else []):
        try:
            yield
        finally:
            np.random.set_state(of_numpy)
            random.setstate(of_random)
