"""Lets plain torch and the worker make the same number of steps in turn, and compares them.

A turn of the worker is a round of its node: it moves to an anchor, makes the steps, and hands over.
The machine's speed drifts, so each turn of the worker is compared with the turn of plain torch
before it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from statistics import median

import msgspec
import trio
from msgspec.structs import replace

from daemon.device.process.trainer import WorkerTrainer
from daemon.device.settings import WorkerSettings, choose_threads
from daemon.services.training.genesis import genesis_parameters
from daemon.system.offload import in_thread
from protocol.errors import UserError
from protocol.identity import Signer
from protocol.ports.trainer import Lane
from protocol.run.manifest import Manifest
from simulator.bench.training.memory import descendants, private_bytes
from simulator.bench.worker import plain_process
from simulator.bench.worker.plain_process import PlainSettings, PlainTurn

# The bound of issue and documentation: at most 3% fewer samples a second.
LEAST_SHARE = 0.97
# Steps before the first turn: torch compiles kernels and grows its pools in the first ones.
WARM_UP_STEPS = 3
# Between two looks whether the worker has made its steps, which it reports at once.
LOOK_S = 0.001
LANE = Lane(base=0, index=0, stride=1)


class WorkerCost(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured. `shares` are the worker's speed by that of plain torch, for each pair."""

    task: str
    device: str
    parameters: int
    steps: int
    plain_samples_per_second: float
    worker_samples_per_second: float
    shares: tuple[float, ...]
    # Beside what the node shares with the worker.
    plain_bytes: int
    worker_bytes: int

    @property
    def share(self) -> float:
        return median(self.shares)

    @property
    def more_bytes(self) -> float:
        """How many bytes a parameter the worker holds beyond plain torch."""
        return (self.worker_bytes - self.plain_bytes) / self.parameters

    @property
    def good(self) -> bool:
        """Whether the worker is fast enough."""
        return self.share >= LEAST_SHARE

    def sentence(self) -> str:
        """The measurement in words."""
        return (
            f"{self.task} on {self.device}, {len(self.shares)} pairs of {self.steps} steps: plain"
            f" torch {self.plain_samples_per_second:.2f} samples/s, the worker"
            f" {self.worker_samples_per_second:.2f}. The worker has {self.share:.1%} of the speed"
            f" (median; {min(self.shares):.1%} to {max(self.shares):.1%}), and"
            f" {self.more_bytes:+.1f} bytes for each of {self.parameters:,} trained parameters"
        )


def measure(
    manifest: Manifest,
    settings: WorkerSettings,
    *,
    turns: int,
    seconds: float,
    say: Callable[[str], None],
) -> WorkerCost:
    """Measure with real processes. Raises `UserError` where the task cannot run.

    Args:
        manifest: The run, with its task and inner optimizer.
        settings: Those of the worker, on the CPU.
        turns: How many pairs of turns.
        seconds: About the length of a turn.
        say: Gets a line for each pair.
    """
    if manifest.inner.optimizer != "adamw":
        raise UserError(
            "BENCH",
            f"The run's optimizer is {manifest.inner.optimizer!r}.",
            why="the loop of plain torch has AdamW",
            fix='measure a run whose file says [inner] optimizer = "adamw"',
            exit_code=2,
        )
    settings = replace(settings, device="cpu", threads=choose_threads(settings.threads))
    return trio.run(_measure, manifest, settings, turns, seconds, say)


async def _measure(
    manifest: Manifest,
    settings: WorkerSettings,
    turns: int,
    seconds: float,
    say: Callable[[str], None],
) -> WorkerCost:
    trainer = WorkerTrainer(manifest, Signer(bytes(32)).peer, settings, lambda event: None)
    async with trainer.running():
        info = await trainer.describe()
        local = await genesis_parameters(trainer, info, manifest.seed, in_thread)
        with _PlainProcess(manifest, settings) as plain:
            before = await in_thread(partial(plain.turn, WARM_UP_STEPS))
            await trainer.train(local, LANE, max_steps=WARM_UP_STEPS)
            await _made(trainer, WARM_UP_STEPS)
            steps = max(1, round(seconds * WARM_UP_STEPS / before.seconds))
            alone: list[PlainTurn] = []
            beside: list[float] = []
            for number in range(1, turns + 1):
                await trainer.collect()
                alone.append(await in_thread(partial(plain.turn, steps)))
                began_s = time.monotonic()
                await trainer.shift(local, LANE, max_steps=steps)
                await _made(trainer, steps)
                work = await trainer.hand_over(LANE)
                beside.append(time.monotonic() - began_s)
                local = local - work.delta
                share = alone[-1].seconds / beside[-1]
                say(f"Pair {number} of {turns}: {share:.1%} of the speed of plain torch.")
            others = [pid for pid in descendants(os.getpid()) if pid != plain.pid]
            # The guard beside the worker holds less.
            held = max(private_bytes(pid) for pid in others)
    samples = steps * manifest.inner.step_samples
    return WorkerCost(
        task=manifest.task,
        device=info.device,
        parameters=info.parameters,
        steps=steps,
        plain_samples_per_second=samples / median(turn.seconds for turn in alone),
        worker_samples_per_second=samples / median(beside),
        shares=tuple(turn.seconds / other for turn, other in zip(alone, beside, strict=True)),
        plain_bytes=max(turn.memory_bytes for turn in alone),
        worker_bytes=held,
    )


async def _made(trainer: WorkerTrainer, steps: int) -> None:
    """Wait until the worker has made the steps of its stretch."""
    while trainer.progress().steps < steps:
        await trio.sleep(LOOK_S)


class _PlainProcess:
    """The process of plain torch."""

    def __init__(self, manifest: Manifest, settings: WorkerSettings) -> None:
        wanted = PlainSettings(
            task=manifest.task,
            task_options=manifest.task_options,
            inner=manifest.inner,
            worker=settings,
            threads=settings.threads,
        )
        threads = str(settings.threads)
        self._process = subprocess.Popen(
            [sys.executable, "-m", plain_process.__name__, msgspec.json.encode(wanted).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        )
        self.pid = self._process.pid

    def turn(self, steps: int) -> PlainTurn:
        """Make the steps. Raises `UserError` where the process has ended."""
        process = self._process
        try:
            print(steps, file=process.stdin, flush=True)
        except BrokenPipeError:
            line = ""
        else:
            line = process.stdout.readline() if process.stdout is not None else ""
        if not line:
            raise UserError(
                "BENCH",
                "Plain torch cannot train this run's task.",
                why="its process ended; the reason is above",
            )
        return msgspec.json.decode(line, type=PlainTurn)

    def __enter__(self) -> _PlainProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
