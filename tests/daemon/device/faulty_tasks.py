"""Tasks that behave as no task should, and one that behaves.

Loaded by workers as `faulty_tasks:Class`, as a user's own would be.
"""

from __future__ import annotations

import itertools
import os
import signal
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


class ShortOfMemory(Line):
    """The machine has no room for its step."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


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


class Scatters(Line):
    """Starts processes that get away from their parent in every way they can, and notes their
    numbers.
    """

    def __init__(self, options: TaskOptions, data_folders: Sequence[str] = ()) -> None:
        super().__init__(options, data_folders)
        sleep = [sys.executable, "-c", "import time; time.sleep(3600)"]
        child = subprocess.Popen(sleep)
        session = subprocess.Popen(sleep, start_new_session=True)
        bare = subprocess.Popen(sleep, start_new_session=True, env={})
        twice = "import os, subprocess; print(subprocess.Popen(__import__('sys').argv[1:], start_new_session=True, stdout=2).pid)"
        orphan = subprocess.run(
            [sys.executable, "-c", twice, *sleep], stdout=subprocess.PIPE, check=True, text=True
        ).stdout.strip()
        forked = os.fork()
        if not forked:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(3600)
            os._exit(0)
        _note(f"{child.pid} {session.pid} {orphan} {forked} {bare.pid}")


class Normed(Line):
    """Has BatchNorm, whose running statistics no swarm can average."""

    def model(self) -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Linear(1, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)
        )


NotATask = 7


# ---------------------------------------------------------------------------- what the optimizer moves, and what stays


class WithTable(torch.nn.Module):
    """A table that is not trained, as ViT-MAE keeps its sines, and a head that is."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.full((4, 4), 0.5), requires_grad=False)
        self.head = torch.nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x + self.table[0])


class Frozen(Line):
    def model(self) -> torch.nn.Module:
        return WithTable()


class Changing(Line):
    """Does something to its model at its second call of loss(); `CHANGES` names each."""

    change = ""
    calls = 0

    def model(self) -> torch.nn.Module:
        return WithTable()

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        self.calls += 1
        if self.calls == 2:
            CHANGES[self.change](model)
        return super().loss(model, batch)


def _other_memory(model: torch.nn.Module) -> None:
    model.head.weight.data = model.head.weight.data.clone()


def _replaced(model: torch.nn.Module) -> None:
    model.head.weight = torch.nn.Parameter(model.head.weight.detach().clone())


def _added(model: torch.nn.Module) -> None:
    model.more = torch.nn.Linear(1, 1)


def _thawed(model: torch.nn.Module) -> None:
    model.table.requires_grad_(True)


def _frozen(model: torch.nn.Module) -> None:
    model.head.weight.requires_grad_(False)


def _moved_table(model: torch.nn.Module) -> None:
    model.table.add_(1)


def _removed(model: torch.nn.Module) -> None:
    model.head.bias = None


CHANGES = {
    "other memory": _other_memory,
    "replaced": _replaced,
    "added": _added,
    "thawed": _thawed,
    "frozen": _frozen,
    "table": _moved_table,
    "removed": _removed,
}


class Counts(torch.nn.Module):
    """Statistics in a buffer, as BatchNorm has them, in a module of the author's own."""

    def __init__(self, persistent: bool) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1), persistent=persistent)
        self.line = torch.nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean.mul_(0.9).add_(0.1 * x.mean().detach())
        return self.line(x - self.mean)


class OwnStatistics(Line):
    def model(self) -> torch.nn.Module:
        return Counts(persistent=True)


class Unregistered(Line):
    """Layers in a plain list: torch knows nothing of them, and an optimizer moves them as little."""

    def model(self) -> torch.nn.Module:
        class Stack(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first = torch.nn.Linear(1, 2)
                self.layers = [torch.nn.Linear(2, 1)]

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.layers[0](self.first(x))

        return Stack()


class OwnTemperature(Line):
    """A tensor of the task, not of the model, that requires a gradient."""

    def __init__(self, options: TaskOptions, data_folders: Sequence[str] = ()) -> None:
        super().__init__(options, data_folders)
        self.temperature = torch.ones((), requires_grad=True)

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return super().loss(model, batch) * self.temperature


class SharedMemory(Line):
    """Two parameters in one piece of memory."""

    def model(self) -> torch.nn.Module:
        first, second = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        second.weight.data = first.weight.data
        return torch.nn.Sequential(first, second)


class Tied(Line):
    """One parameter in two places, which is right."""

    def model(self) -> torch.nn.Module:
        first, second = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        second.weight = first.weight
        return torch.nn.Sequential(first, second)


class OwnGradients(Line):
    """Takes the views of the gradients away, as optimizers of its author's own would."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        for part in model.parameters():
            part.grad = None
        return super().loss(model, batch)


class Evaluating(Line):
    """A model in eval mode: its author wants no dropout, and a BatchNorm with the statistics it
    came with.
    """

    def model(self) -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Linear(1, 4),
            torch.nn.BatchNorm1d(4),
            torch.nn.Dropout(0.9),
            torch.nn.Linear(4, 1),
        ).eval()


class Made(Line):
    """Its model comes from the option `what`."""

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
    """Its methods return what they should not; the option `what` says which."""

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


class Fourier(Line):
    """Random features: a buffer that is drawn once."""

    def model(self) -> torch.nn.Module:
        class Features(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("projection", torch.randn(1, 8))
                self.head = torch.nn.Linear(8, 1)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(torch.sin(x @ self.projection))

        return Features()


# ------------------------------------------------------------------------------------------- what fails, and where


class NanSample(Line):
    """Sample 17 is not a number."""

    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        x, y = super().batch(indices)
        return (x * float("nan") if 17 in indices else x), y


class BadSample(Line):
    """Sample 17 cannot be read."""

    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        if 17 in indices:
            raise OSError("image 17 is truncated")
        return super().batch(indices)


class Exits(Line):
    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        sys.exit(3)


class Crashes(Line):
    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGSEGV)
        return super().loss(model, batch)


class FailsToLoad(Line):
    def __init__(self, options: TaskOptions, data_folders: Sequence[str] = ()) -> None:
        super().__init__(options, data_folders)
        raise KeyError("text")


class WrongInit(Line):
    def __init__(self) -> None:
        super().__init__(LineOptions())


class Talks(Line):
    """Prints to both streams, a megabyte too, with what a terminal would obey."""

    def __init__(self, options: TaskOptions, data_folders: Sequence[str] = ()) -> None:
        super().__init__(options, data_folders)
        print("indexing \x1b[31mthe data set")
        print("a warning", file=sys.stderr)
        for number in range(20_000):
            print("line", number, "x" * 50)
        print("progress 1%\rprogress 2%\r", end="")
        sys.stdout.close()


class Forks(Line):
    """A child, made by a bare fork, that holds all that its parent had open."""

    def __init__(self, options: TaskOptions, data_folders: Sequence[str] = ()) -> None:
        super().__init__(options, data_folders)
        if not os.fork():
            os.setsid()
            time.sleep(30)
            os._exit(0)
