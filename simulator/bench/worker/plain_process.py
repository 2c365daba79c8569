"""Trains a task as a user of plain torch writes it.

Usage: `python -m simulator.bench.worker.plain_process SETTINGS`, with `PlainSettings` as JSON. Each
line of its input is a number of steps, which it answers with a `PlainTurn`. It ends with its input.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

import msgspec
import numpy as np
import torch

from daemon.device.settings import WorkerSettings
from daemon.device.tasks.catalog import load_task
from daemon.device.tasks.task import Task
from protocol.run.manifest import Inner
from simulator.bench.allreduce.driver import die_with_parent
from simulator.bench.training.memory import private_bytes


class PlainSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What to train."""

    task: str
    task_options: dict[str, int | float | str | bool]
    inner: Inner
    worker: WorkerSettings
    threads: int


class PlainTurn(msgspec.Struct, frozen=True, kw_only=True):
    """The time of the steps, and the memory of the process after them."""

    seconds: float
    memory_bytes: int


class PlainLoop:
    """A model and torch's AdamW. Each step draws the next samples of one permutation."""

    def __init__(self, task: Task, inner: Inner) -> None:
        self._task, self._inner = task, inner
        self._model = task.model()
        self._parameters = [part for part in self._model.parameters() if part.requires_grad]
        matrices = [part for part in self._parameters if part.ndim >= 2]
        others = [part for part in self._parameters if part.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": inner.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=inner.learning_rate,
            betas=(inner.beta1, inner.beta2),
            fused=True,
        )
        self._batches = self._draw()

    def _draw(self) -> Iterator[np.ndarray]:
        size, batch = self._task.dataset_size(), self._inner.batch_size
        order = np.random.default_rng(0).permutation(size)
        at = 0
        while True:
            yield np.take(order, range(at, at + batch), mode="wrap")
            at = (at + batch) % size

    def step(self) -> None:
        """Make one step, with as many batches as the run accumulates."""
        self._optimizer.zero_grad()
        batches = self._inner.step_samples // self._inner.batch_size
        for _ in range(batches):
            loss = self._task.loss(self._model, self._task.batch(next(self._batches)))
            (loss / batches).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._parameters, self._inner.clip_norm)
        self._optimizer.step()


def main(argument: str) -> None:
    settings = msgspec.json.decode(argument, type=PlainSettings)
    die_with_parent()
    # What libraries print goes to the log.
    output = os.dup(1)
    os.dup2(2, 1)
    torch.set_num_threads(settings.threads)
    torch.set_num_interop_threads(1)
    # As in the worker: numpy measures these once, and would warn later.
    np.finfo(np.float32), np.finfo(np.float64)
    # As in the worker: Adam's averages of zero gradients decay into denormals.
    torch.set_flush_denormal(True)
    loop = PlainLoop(
        load_task(settings.task, settings.task_options, settings.worker), settings.inner
    )
    for line in sys.stdin:
        began_s = time.monotonic()
        for _ in range(int(line)):
            loop.step()
        turn = PlainTurn(
            seconds=time.monotonic() - began_s, memory_bytes=private_bytes(os.getpid())
        )
        os.write(output, msgspec.json.encode(turn) + b"\n")


if __name__ == "__main__":
    main(sys.argv[1])
