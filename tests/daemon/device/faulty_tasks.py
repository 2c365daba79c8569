"""One correct task, and tasks that hang, fail, crash or start processes.

Workers load them as `faulty_tasks:Class`, like a user's own task.
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
    """Send text to the test, through the pipe that it reads."""
    Path(os.environ["HYPERGPU_TEST_NOTE"]).write_text(text, encoding="ascii")


class LineOptions(TaskOptions, frozen=True, kw_only=True):
    slope: float = 2.0


class Line(Task):
    """Fits y = slope x with one weight and one bias."""

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
    """Its first step never ends, and lets other threads run."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        _note("in the step")
        time.sleep(3600)
        return super().loss(model, batch)


class ShortOfMemory(Line):
    """Its step runs out of memory."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


class ShortOfMemoryLater(Line):
    """After its third step, it has memory for two samples at once."""

    steps = 0

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        self.steps += 1
        if self.steps > 3 and len(batch[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return super().loss(model, batch)


class Holds(Line):
    """Its first step never ends, and keeps the interpreter lock: no other thread runs."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        _note("in the step")
        sum(itertools.repeat(1))
        return super().loss(model, batch)


class Fails(Line):
    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        raise RuntimeError("the cat sat on the data")


class Explodes(Line):
    """Its loss is NaN from the third step on."""

    steps = 0

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        self.steps += 1
        return super().loss(model, batch) * (float("nan") if self.steps > 2 else 1.0)


class Spawns(Line):
    """Starts a process, and sends its pid to the test."""

    def __init__(self, options: TaskOptions, data_folders: Sequence[str] = ()) -> None:
        super().__init__(options, data_folders)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        _note(str(child.pid))


class Scatters(Line):
    """Starts processes that leave their parent in different ways, and sends their pids.

    The order is: child, child in a new session, orphan, fork, child without environment.
    """

    def __init__(self, options: TaskOptions, data_folders: Sequence[str] = ()) -> None:
        super().__init__(options, data_folders)
        sleep = [sys.executable, "-c", "import time; time.sleep(3600)"]
        child = subprocess.Popen(sleep)
        session = subprocess.Popen(sleep, start_new_session=True)
        bare = subprocess.Popen(sleep, start_new_session=True, env={})
        twice = (
            "import subprocess, sys;"
            " child = subprocess.Popen(sys.argv[1:], start_new_session=True, stdout=2);"
            " print(child.pid)"
        )
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
    """Its BatchNorm counts the batches of one node, which a swarm cannot average."""

    def model(self) -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Linear(1, 4), torch.nn.BatchNorm1d(4, momentum=None), torch.nn.Linear(4, 1)
        )


NotATask = 7


class NanSample(Line):
    """Its sample 17 is NaN."""

    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        x, y = super().batch(indices)
        return (x * float("nan") if 17 in indices else x), y


class BadSample(Line):
    """Its sample 17 cannot be read."""

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
    """Prints a megabyte to both streams, with control sequences for terminals."""

    def __init__(self, options: TaskOptions, data_folders: Sequence[str] = ()) -> None:
        super().__init__(options, data_folders)
        print("indexing \x1b[31mthe data set")
        print("a warning", file=sys.stderr)
        for number in range(20_000):
            print("line", number, "x" * 50)
        print("progress 1%\rprogress 2%\r", end="")
        sys.stdout.close()


class Forks(Line):
    """Forks a child that keeps all descriptors of its parent open."""

    def __init__(self, options: TaskOptions, data_folders: Sequence[str] = ()) -> None:
        super().__init__(options, data_folders)
        if not os.fork():
            os.setsid()
            time.sleep(30)
            os._exit(0)
