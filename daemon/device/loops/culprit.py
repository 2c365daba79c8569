"""Finds the sample that makes a batch fail. Worker process only."""

from __future__ import annotations

import math
from time import monotonic

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from daemon.device.loops.batches import checked_batch
from daemon.device.model.author_code import AuthorFault, SampleFault, author_code
from daemon.device.processor import Device
from daemon.device.tasks.task import Task

# How long to search. The result only improves a log line.
SEARCH_S = 2.0


def find_culprit(
    task: Task, device: Device, model: nn.Module, indices: npt.NDArray[np.int64]
) -> int | None:
    """Return the place in the batch of the first sample that fails alone.

    Returns None where the search found none in `SEARCH_S`. `indices` has shape (samples,). The
    random numbers of the task are the same afterwards.
    """
    deadline = monotonic() + SEARCH_S
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for place in range(len(indices)):
            if monotonic() > deadline:
                break
            try:
                with author_code("batch()", SampleFault):
                    sample = task.batch(indices[place : place + 1])
                    batch = device.put(checked_batch(task, sample, 1))
                with author_code("loss()", SampleFault), device.autocast():
                    loss = float(task.loss(model, batch).detach().sum())
            except AuthorFault:
                return place
            if not math.isfinite(loss):
                return place
    return None
