"""Defines `Task`, the base class of a training job. Users derive their own tasks from it.

    from hypergpu import Task, TaskOptions

    class Tiny(Task):
        class Options(TaskOptions, frozen=True, kw_only=True):
            width: int = 32

        def model(self):  ...
        def dataset_size(self):  ...
        def batch(self, indices):  ...
        def loss(self, model, batch):  ...

A manifest names the class as `task = "my_module:Tiny"`. Its `[task_options]` become `self.options`.
Importing this module does not import torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from math import prod, sqrt
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Batch = Sequence["torch.Tensor"]
"""Tensors whose first dimension is the batch; the worker moves them to its device."""


# The share of the data that is held out, and the most samples: enough for a loss within 1%.
HELD_OUT_SHARE = 20
MAX_HELD_OUT = 1024
# The samples that are scored at a time. Without gradients they need less memory than a batch.
SCORED_AT_ONCE = 16
# The values of one sample's output that a line shows.
SHOWN_VALUES = 8


class TaskOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of a task's `Options`: typed fields with defaults.

    An unknown key in a manifest is an error that names the nearest known one.
    """


class Init(msgspec.Struct, frozen=True, kw_only=True):
    """The initial values of a tensor; `protocol.ports.trainer.ParameterSpec` has the kinds."""

    kind: str
    bound: float = 0.0


ZEROS = Init(kind="zeros")
ONES = Init(kind="ones")
# The values that `model()` gives the parameter. They are part of the task's digest.
GIVEN = Init(kind="given")


def uniform(bound: float) -> Init:
    """Draw uniformly from [-bound, bound), with a standard deviation of bound / sqrt(3)."""
    return Init(kind="uniform", bound=bound)


class Task(ABC):
    """One training job. The worker makes one instance and calls it from one thread.

    All members of a run must have the same model, so `model` and `init` may only depend on the
    options. Members compare their tasks: names, shapes and order of tensors, options, size and a
    sample of the data, and source code. They refuse each other where these differ.

    Parameters that require a gradient are averaged. Their initial values come from the run's seed
    (`protocol/run/initial_parameters.py`), and those of `model()` are used only where `init` says
    `GIVEN`. Parameters with
    `requires_grad = False` and buffers keep the values of `model()`. They must be the same on every
    node, and must not change. BatchNorm's running statistics in training mode are averaged with the
    parameters. Before a task is made, torch, numpy and `random` get the run's seed.

    A task with `data = "private"` has data of its own on each node, which is not compared.
    `version` grows when a shipped task changes what it computes. The code of other tasks is
    compared directly.
    """

    Options: ClassVar[type[TaskOptions]] = TaskOptions
    version: ClassVar[int] = 1
    # How many samples `held_out_batches` gives at a time. The worker halves it when memory is
    # short.
    scored_at_once: int = SCORED_AT_ONCE

    def __init__(self, options: TaskOptions, data_folders: Sequence[str] = ()) -> None:
        """Load data here or later.

        `data_folders` are the folders that tasks may read (`daemon.device.tasks.files`).
        """
        self.options: Any = options
        self.data_folders = tuple(data_folders)
        # The samples that `evaluate` scores, shape (count,). The worker sets them before each call.
        self.held_out_indices: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    @abstractmethod
    def model(self) -> torch.nn.Module:
        """Return a new model on the CPU.

        Its parameters that require a gradient, float32 and in the order of `named_parameters()`,
        are the run's flat vector.
        """

    @abstractmethod
    def dataset_size(self) -> int:
        """Return the number of samples, at least 1."""

    @abstractmethod
    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        """Return the samples at `indices`, shape (count,), each in [0, dataset_size)."""

    @abstractmethod
    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Return the mean loss over the batch, a scalar with a gradient."""

    def token_count(self, batch: Batch) -> int:
        """Return how many predictions the loss of a batch averages.

        A step whose batch is computed in parts weights each part's loss with this number. The
        default counts samples. A task whose samples have different lengths returns the labels that
        count: `int((batch[1] != -100).sum())`.
        """
        return 0

    def parameter_groups(self, model: torch.nn.Module) -> Sequence[Mapping[str, Any]] | None:
        """Return groups of parameters with rules of their own, as for `torch.optim`, or None.

        A group is a dict with `params`, and perhaps `lr`, `weight_decay` and `muon` (False leaves
        its matrices to AdamW); the run's file has the other values. Schedules multiply every `lr`.
        Without groups, matrices and kernels have the run's weight decay, biases and norms none.
        """
        return None

    def held_out_size(self) -> int:
        """Return how many samples are held out: the last ones, on which no member trains.

        The default is 5% of the data set, at most 1,024. 0 means that nothing can be scored. Runs
        of rules 2 hold nothing out.
        """
        return min(MAX_HELD_OUT, self.dataset_size() // HELD_OUT_SHARE)

    def held_out_gap(self) -> int:
        """Return how many samples before the held-out ones are not used, because they overlap."""
        return 0

    def held_out_batches(self, model: torch.nn.Module) -> Iterator[tuple[Batch, int]]:
        """Yield the held-out samples to score now, on the model's device, with their number."""
        device = next(model.parameters()).device
        for at in range(0, len(self.held_out_indices), self.scored_at_once):
            indices = self.held_out_indices[at : at + self.scored_at_once]
            yield [tensor.to(device) for tensor in self.batch(indices.copy())], len(indices)

    def evaluate(self, model: torch.nn.Module) -> dict[str, float]:
        """Score the model on `held_out_indices`. Return figures by name, "loss" among them.

        The members score different samples, and the swarm's loss is the mean over all. The worker
        calls this in eval mode, without gradients. The default returns the mean loss.
        """
        total = 0.0
        for batch, count in self.held_out_batches(model):
            total += float(self.loss(model, batch)) * count
        return {"loss": total / len(self.held_out_indices)}

    def predictions(self, model: torch.nn.Module, batch: Batch) -> Sequence[str]:
        """Return one line for each sample of a batch, for `hypergpud sample`.

        The worker calls this in eval mode, without gradients. The default shows the output for the
        first tensor of the batch, and the last tensor where it has one value for each sample.
        """
        outputs = model(batch[0]).flatten(1)
        target = batch[-1] if len(batch) > 1 and batch[-1].numel() == len(outputs) else None
        lines: list[str] = []
        for number, row in enumerate(outputs.tolist()):
            shown = ", ".join(f"{value:.4g}" for value in row[:SHOWN_VALUES])
            more = f", ... ({len(row)} values)" if len(row) > SHOWN_VALUES else ""
            label = "" if target is None else f" (data: {target.flatten()[number].item():.4g})"
            lines.append(f"{shown}{more}{label}")
        return lines

    def source_modules(self) -> tuple[str, ...]:
        """Return the modules whose source members compare."""
        return (type(self).__module__,)

    def init(self, name: str, shape: tuple[int, ...]) -> Init:
        """Return the initial values of the parameter `name`.

        `GIVEN` means the values that `model()` gives it, such as those of a pretrained model.

        The default is uniform(1/sqrt(fan-in)) for matrices and kernels, ones for `weight` vectors,
        and zeros for the rest.
        """
        if len(shape) >= 2:
            return uniform(1 / sqrt(max(1, prod(shape[1:]))))
        return ONES if name.rpartition(".")[2] == "weight" else ZEROS
