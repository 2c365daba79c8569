"""Faulty tasks for the tests of `hypergpud task check`."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor, nn

from hypergpu import Batch, Task


class Good(Task):
    """Learns a line."""

    def model(self) -> nn.Module:
        return nn.Linear(1, 1)

    def dataset_size(self) -> int:
        return 200

    def batch(self, indices: np.ndarray) -> Batch:
        x = torch.from_numpy(indices.astype(np.float32)[:, None] / 200)
        return x, 2 * x

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        x, y = batch
        result: Tensor = ((model(x) - y) ** 2).mean()
        return result


class Raises(Good):
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        raise KeyError("label")


class NotANumber(Good):
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return super().loss(model, batch) * float("nan")


class BatchNorm(Good):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


class BadEvaluation(Good):
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"accuracy": 1.0}


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(1, 1), nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.used(x)
        return result


class Unused(Good):
    def model(self) -> nn.Module:
        return Pair()

    def batch(self, indices: np.ndarray) -> Batch:
        self.calls = getattr(self, "calls", 0) + 1
        x, y = super().batch(indices)
        return x + self.calls * 1e-3, y


class Leaves(Good):
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        os._exit(0)


class ScoresFew(Good):
    """Has memory for a training batch, and for four samples at a time in evaluation."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        if not torch.is_grad_enabled() and len(batch[0]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().loss(model, batch)
