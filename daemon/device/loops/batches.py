"""What a task's methods return, checked.

Each `TaskFault` says what came and what belongs there. Worker process only.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch

from daemon.device.model.author_code import TaskFault, author_code, place_of
from daemon.device.tasks.task import Task
from protocol.run.data_order import MAX_POSITION


def checked_size(task: Task) -> int:
    """The number of samples, as a Python integer: numpy's and torch's integers are taken too."""
    with author_code("dataset_size()"):
        said = task.dataset_size()
    try:
        size = None if isinstance(said, bool) else operator.index(said)
    except TypeError:
        size = None
    if size is None:
        raise TaskFault(
            f"{place_of(task.dataset_size)} returned {said!r}, a {type(said).__name__}",
            fix="return an integer, as in len(self.labels)",
        )
    if size < 1:
        raise TaskFault(
            f"{place_of(task.dataset_size)} returned {size}: there is nothing to train on",
            fix="check the path to the data, and that it holds samples",
        )
    if size > MAX_POSITION:
        raise TaskFault(
            f"{place_of(task.dataset_size)} returned {size}, which does not fit 63 bits",
            fix="return the number of samples",
        )
    return size


def checked_batch(task: Task, batch: object, asked: int) -> Sequence[torch.Tensor]:
    """A sequence of tensors of which at least one has `asked` as its first dimension."""
    if isinstance(batch, torch.Tensor) or not isinstance(batch, Sequence):
        raise TaskFault(
            f"{place_of(task.batch)} returned a {type(batch).__name__}",
            fix="return a tuple of tensors whose first dimension is the batch, as in (inputs, labels)",
        )
    for number, part in enumerate(batch, start=1):
        if not isinstance(part, torch.Tensor):
            raise TaskFault(
                f"{place_of(task.batch)} returned a {type(part).__name__} in place {number}",
                fix="return tensors alone: torch.from_numpy(...), torch.tensor(...)",
            )
    sizes = [part.shape[0] for part in batch if part.ndim]
    if sizes and asked not in sizes:
        raise TaskFault(
            f"{place_of(task.batch)} was asked for {asked} samples and returned {sizes[0]}",
            fix="return the samples at the indices, one for each: a node's weight in the average is how many it trained",
        )
    return batch


def checked_loss(task: Task, loss: object) -> torch.Tensor:
    """A scalar that depends on something with a gradient. A tensor of one element counts."""
    if not isinstance(loss, torch.Tensor):
        raise TaskFault(
            f"{place_of(task.loss)} returned a {type(loss).__name__}",
            fix="return a tensor with one element (does loss() lack a return, or call .item()?)",
        )
    if loss.numel() != 1:
        raise TaskFault(
            f"{place_of(task.loss)} returned a tensor of shape {tuple(loss.shape)}",
            fix='return the mean over the batch: .mean(), or reduction="mean"',
        )
    if not loss.is_floating_point():
        raise TaskFault(
            f"{place_of(task.loss)} returned a tensor of type {loss.dtype}",
            fix="return a float32 scalar",
        )
    if not loss.requires_grad:
        raise TaskFault(
            f"The result of {place_of(task.loss)} depends on no parameter (it requires no gradient)",
            fix="compute it with the model, without no_grad(), detach() and .data",
        )
    return loss.reshape(())
