"""Tasks whose methods return wrong models, sizes, batches and losses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from hypergpu import Batch, TaskOptions
from tests.daemon.device.faulty_tasks import Line


class Made(Line):
    """The option `what` chooses its model from `MODELS`."""

    class Options(TaskOptions, frozen=True, kw_only=True):
        what: str = ""
        slope: float = 2.0

    def model(self) -> torch.nn.Module:
        return MODELS[self.options.what]()


MODELS = {
    "no parameters": torch.nn.Identity,
    "all frozen": lambda: torch.nn.Linear(1, 1).requires_grad_(False),
    "float64": lambda: torch.nn.Linear(1, 1).double(),
    "bfloat16": lambda: torch.nn.Linear(1, 1).bfloat16(),
    "complex": lambda: torch.nn.Linear(1, 1, dtype=torch.complex64),
    "meta": lambda: torch.nn.Linear(1, 1, device="meta"),
    "lazy": lambda: torch.nn.LazyLinear(1),
    "None": lambda: None,
}


class Returns(Line):
    """The option `what` chooses what its methods return."""

    Options = Made.Options

    def dataset_size(self) -> int:
        sizes = {
            "size 0": 0,
            "size -3": -3,
            "size True": True,
            "size 1.5": 1.5,
            "size None": None,
            "size 2**63": 1 << 63,
        }
        sizes |= {"np.int64": np.int64(100), "torch.int64": torch.tensor(100)}
        return sizes.get(self.options.what, 100)

    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        x, y = super().batch(indices)
        what = {
            "batch dict": {"x": x},
            "batch tensor": x,
            "batch None": None,
            "batch numpy": (x.numpy(), y),
            "batch short": (x[:2], y[:2]),
        }
        return what.get(self.options.what, (x, y))

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        x, y = batch
        each = ((model(x) - y) ** 2).flatten()
        what = {
            "loss vector": each,
            "loss None": None,
            "loss float": each.mean().item(),
            "loss detached": each.mean().detach(),
            "loss of nothing": torch.zeros((), requires_grad=True) + 0,
            "loss (1,)": each.mean()[None],
            "loss int": each.mean().long(),
        }
        return what.get(self.options.what, each.mean())
