"""Tasks that behave as no task should, and one that behaves. Loaded by workers as `odd_tasks:Class`, as a user's own would be."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hypergpu import Batch, Task, TaskOptions


def _note(text: str) -> None:
    """Tell the test, through the pipe it reads."""
    Path(os.environ["HYPERGPU_TEST_NOTE"]).write_text(text, encoding="ascii")


class LineOptions(TaskOptions, frozen=True, kw_only=True):
    slope: float = 2.0


class Line(Task):
    """Fits y = slope x; one weight, one bias."""

    Options = LineOptions

    def model(self) -> torch.nn.Module:
        return torch.nn.Linear(1, 1)

    def dataset_size(self) -> int:
        return 100

    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        x = torch.from_numpy(indices.astype(np.float32)[:, None] / np.float32(100))
        return x, self.options.slope * x

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        x, y = batch
        return ((model(x) - y) ** 2).mean()


class Sleeps(Line):
    """One step that never ends and lets other threads run."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        _note("in the step")
        time.sleep(3600)
        return super().loss(model, batch)


class Holds(Line):
    """One step that never ends and keeps the interpreter's lock: no other Python thread runs."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        _note("in the step")
        sum(itertools.repeat(1))
        return super().loss(model, batch)


class Fails(Line):
    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        raise RuntimeError("the cat sat on the data")


class Explodes(Line):
    """Fine for two steps, then its loss is not a number."""

    steps = 0

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        self.steps += 1
        return super().loss(model, batch) * (float("nan") if self.steps > 2 else 1.0)


class Spawns(Line):
    """Starts a process of its own and notes its number."""

    def __init__(self, options: TaskOptions, data_folders: Sequence[str] = ()) -> None:
        super().__init__(options, data_folders)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        _note(str(child.pid))


class Normed(Line):
    """Has BatchNorm, whose running statistics no swarm can average."""

    def model(self) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))


NotATask = 7
