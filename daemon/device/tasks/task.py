"""A task: make the model, make the loss, fetch the batches.

What people write who bring their own training job.

    from hypergpu import Task, TaskOptions

    class Tiny(Task):
        class Options(TaskOptions, frozen=True, kw_only=True):
            width: int = 32

        def model(self):  ...
        def dataset_size(self):  ...
        def batch(self, indices):  ...
        def loss(self, model, batch):  ...

A manifest names it as `task = "my_module:Tiny"`, its `[task_options]` become `self.options`.
Importing this module does not import torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod, sqrt
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Batch = Sequence["torch.Tensor"]
"""Tensors whose first dimension is the batch; the worker moves them to its device."""


class TaskOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of a task's `Options`: typed fields with defaults.

    An unknown key in a manifest is an error that names the nearest known one.
    """


class Init(msgspec.Struct, frozen=True, kw_only=True):
    """How one tensor begins; the kinds are those of `protocol.ports.trainer.ParameterSpec`."""

    kind: str
    bound: float = 0.0


ZEROS = Init(kind="zeros")
ONES = Init(kind="ones")


def uniform(bound: float) -> Init:
    """Evenly in [-bound, bound), which has a standard deviation of bound / sqrt(3)."""
    return Init(kind="uniform", bound=bound)


class Task(ABC):
    """One training job. The worker makes one instance and calls it from one thread.

    Every member of a run must see the same model: `model` and `init` may depend on the options
    alone. Members compare their tasks (names, shapes and order of tensors, options, size and a
    sample of the data, source code) and refuse each other where they differ.

    Parameters that require a gradient are averaged; their own initial values are thrown away (they
    come from the run's seed, see `protocol/run/initial_parameters.py`). Parameters with `requires_grad = False`
    and buffers keep the values that `model()` gives them, must be the same on every node, and must
    not change: running statistics like BatchNorm's are refused, because every node would keep its
    own. Before a task is made, torch, numpy and `random` are seeded with the run's seed.

    A task with `data = "private"` has data of its own on each node: size and content are not
    compared. `version` grows when a shipped task computes something else than before; the code of
    other tasks is compared itself.
    """

    Options: ClassVar[type[TaskOptions]] = TaskOptions
    version: ClassVar[int] = 1

    def __init__(self, options: TaskOptions, data_folders: Sequence[str] = ()) -> None:
        """`data_folders` is what this machine's owner lets tasks read (see
        `daemon.device.tasks.files`).

        Load data here or later.
        """
        self.options: Any = options
        self.data_folders = tuple(data_folders)

    @abstractmethod
    def model(self) -> torch.nn.Module:
        """A new model on the CPU.

        Its parameters that require a gradient, float32 and in the order of `named_parameters()`,
        are the run's flat vector.
        """

    @abstractmethod
    def dataset_size(self) -> int:
        """How many samples there are, at least 1."""

    @abstractmethod
    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        """The samples at `indices`, shape (count,), each in [0, dataset_size)."""

    @abstractmethod
    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The mean loss over the batch, a scalar with a gradient."""

    def init(self, name: str, shape: tuple[int, ...]) -> Init:
        """How the parameter `name` begins.

        The default: 1/sqrt(fan-in) for matrices and kernels, ones for `weight` vectors, else zeros.
        """
        if len(shape) >= 2:
            return uniform(1 / sqrt(max(1, prod(shape[1:]))))
        return ONES if name.rpartition(".")[2] == "weight" else ZEROS
