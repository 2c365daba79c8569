"""Checks the values that a task's methods return. Worker process only.

Each `TaskFault` says what the method returned, and what it should return.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch

from daemon.device.model.author_code import TaskFault, author_code, place_of
from daemon.device.tasks.task import Task
from protocol.run.data_order import MAX_POSITION


def checked_size(task: Task) -> int:
    """Return the number of samples, as a Python integer. Accepts integers of numpy and torch."""
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
    """Return the batch, if it is a sequence of tensors, one of which has `asked` rows."""
    if isinstance(batch, torch.Tensor) or not isinstance(batch, Sequence):
        raise TaskFault(
            f"{place_of(task.batch)} returned a {type(batch).__name__}",
            fix="return a tuple of tensors whose first dimension is the batch, such as"
            " (inputs, labels)",
        )
    for number, part in enumerate(batch, start=1):
        if not isinstance(part, torch.Tensor):
            raise TaskFault(
                f"{place_of(task.batch)} returned a {type(part).__name__} in place {number}",
                fix="return only tensors: torch.from_numpy(...), torch.tensor(...)",
            )
    sizes = [part.shape[0] for part in batch if part.ndim]
    if sizes and asked not in sizes:
        raise TaskFault(
            f"{place_of(task.batch)} was asked for {asked} samples and returned {sizes[0]}",
            fix="return one sample for each index: the number of samples is the node's weight in"
            " the average",
        )
    return batch


def checked_tokens(task: Task, batch: Sequence[torch.Tensor]) -> int:
    """Return how many tokens the loss of a batch averages; 0 where the task counts samples."""
    with author_code("token_count()"):
        said = task.token_count(batch)
    try:
        count = -1 if isinstance(said, bool) else operator.index(said)
    except TypeError:
        count = -1
    if count < 0:
        raise TaskFault(
            f"{place_of(task.token_count)} returned {said!r}, a {type(said).__name__}",
            fix="return the number of labels that count: int((labels != -100).sum())",
        )
    return count


def checked_loss(task: Task, loss: object) -> torch.Tensor:
    """Return the loss as a scalar, if it has one element and a gradient."""
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
            f"The result of {place_of(task.loss)} depends on no parameter (it requires no"
            " gradient)",
            fix="compute it with the model, without no_grad(), detach() and .data",
        )
    return loss.reshape(())
