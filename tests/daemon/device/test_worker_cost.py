"""What the worker costs beside plain torch: time, and memory. Prints its figures.

python -m pytest -s -m slow tests/daemon/device/test_worker_cost.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import trio

from daemon.device.process.trainer import WorkerTrainer
from daemon.device.settings import WorkerSettings
from protocol.identity import Signer
from protocol.ports.trainer import Lane
from protocol.run.initial_parameters import initial_parameters
from protocol.run.manifest import Inner, Manifest
from tests.daemon.device.test_supervisor import only_worker

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.real]

PEER = Signer(bytes(32)).peer
LANE = Lane(base=0, index=0, stride=1)
SMALL: dict[str, int | float | str | bool] = {}  # The shipped byte GPT: 0.8 M parameters.
LARGE: dict[str, int | float | str | bool] = {"layers": 6, "heads": 8, "width": 256}  # 4.8 M
HUGE: dict[str, int | float | str | bool] = {"layers": 11, "heads": 8, "width": 384}  # 20 M
INNER = Inner(batch_size=8, weight_decay=0.1)
# The machine's speed drifts, so that plain torch and the worker take turns.
TURNS = 3
TURN_S = 6.0

PLAIN = """
import sys, time
import numpy as np, torch
from daemon.device.settings import WorkerSettings
from daemon.device.tasks.catalog import load_task
torch.set_num_threads(1)
torch.set_flush_denormal(True)
options = eval(sys.argv[1])
seconds = float(sys.argv[2])
task = load_task("byte_gpt", options, WorkerSettings())
model = task.model()
parts = list(model.parameters())
optimizer = torch.optim.AdamW(
    [{"params": [part for part in parts if part.ndim >= 2], "weight_decay": 0.1},
     {"params": [part for part in parts if part.ndim < 2], "weight_decay": 0.0}],
    lr=1e-3, betas=(0.9, 0.99), fused=True)
order = np.random.default_rng(0).permutation(task.dataset_size())
def step(number):
    at = 8 * number % (len(order) - 8)
    optimizer.zero_grad()
    task.loss(model, task.batch(order[at : at + 8])).backward()
    torch.nn.utils.clip_grad_norm_(parts, 1.0)
    optimizer.step()
for number in range(3):
    step(number)
began, number = time.monotonic(), 3
while time.monotonic() - began < seconds:
    step(number)
    number += 1
print((number - 3) * 8 / (time.monotonic() - began))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def plain(options: dict[str, int | float | str | bool], seconds: float) -> tuple[float, int]:
    """Return samples a second of plain torch, and its largest memory in KiB."""
    output = subprocess.run(
        [sys.executable, "-c", PLAIN, repr(options), str(seconds)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[3],
    ).stdout.split()
    return float(output[0]), int(output[1])


def worker(options: dict[str, int | float | str | bool]) -> WorkerTrainer:
    manifest = Manifest(name="cost", task="byte_gpt", task_options=options, inner=INNER)
    settings = WorkerSettings(device="cpu", threads=1)
    return WorkerTrainer(manifest, PEER, settings, lambda event: None)


async def begin(trainer: WorkerTrainer) -> np.ndarray:
    """Train until the first steps are made; return the anchor."""
    anchor = initial_parameters((await trainer.describe()).specs, 0)
    await trainer.train(anchor, LANE)
    while trainer.progress().steps < 3:
        await trio.sleep(0.05)
    await trainer.hand_over(LANE)
    return anchor


async def rate(trainer: WorkerTrainer, local: np.ndarray, seconds: float, every_s: float) -> float:
    """Return samples a second, with a hand-over and a shift every `every_s` seconds."""
    began, samples = trio.current_time(), 0
    while trio.current_time() - began < seconds:
        await trio.sleep(every_s)
        work = await trainer.hand_over(LANE)
        samples += work.samples
        local = local - work.delta
        if every_s < seconds:
            await trainer.shift(local, LANE)
    return samples / (trio.current_time() - began)


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


@pytest.mark.parametrize(("name", "options"), [("0.8 M", SMALL), ("4.8 M", LARGE)])
async def test_hand_overs_and_shifts_each_second_cost_at_most_3_percent(
    name: str, options: dict[str, int | float | str | bool]
) -> None:
    trainer = worker(options)
    async with trainer.running():
        local = await begin(trainer)
        alone, busy = [], []
        for _ in range(TURNS):
            alone.append(await rate(trainer, local, TURN_S, TURN_S))
            busy.append(await rate(trainer, local, TURN_S, 1.0))
    share = median(busy) / median(alone)
    say(
        f"{name} parameters: {median(alone):.1f} samples/s, {median(busy):.1f} with a hand-over and"
        f" a shift each second: {share:.3f}"
    )
    assert share >= 0.97


async def test_the_worker_is_at_most_3_percent_slower_than_plain_torch() -> None:
    trainer = worker(SMALL)
    async with trainer.running():
        local = await begin(trainer)
        torch_rates, rates = [], []
        for _ in range(TURNS):
            await trainer.collect()
            torch_rates.append((await trio.to_thread.run_sync(plain, SMALL, TURN_S))[0])
            await trainer.train(local, LANE)
            rates.append(await rate(trainer, local, TURN_S, TURN_S))
    share = median(rates) / median(torch_rates)
    say(
        f"byte GPT: worker {median(rates):.1f} samples/s, plain torch {median(torch_rates):.1f}:"
        f" {share:.3f}"
    )
    assert share >= 0.97


def resident_bytes(pid: int, field: Callable[[str], bool]) -> int:
    """Return the sum of a process's fields in /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if field(line))


async def test_the_worker_holds_at_most_two_vectors_more_than_plain_torch() -> None:
    _, plain_kib = await trio.to_thread.run_sync(plain, HUGE, 1.0)
    trainer = worker(HUGE)
    async with trainer.running():
        local = await begin(trainer)
        for _ in range(3):
            await trio.sleep(2.0)
            work = await trainer.hand_over(LANE)
            local = local - work.delta
            await trainer.shift(local, LANE)
        await trio.sleep(2.0)
        pid, count = only_worker(), local.size
        # The memory that the node shares counts once, and is not the worker's own.
        own = resident_bytes(pid, lambda line: line.startswith(("RssAnon", "RssFile")))
        shared = resident_bytes(pid, lambda line: line.startswith("RssShmem"))
    more = (own - (plain_kib << 10)) / count
    say(
        f"{count / 1e6:.1f} M parameters: plain torch {(plain_kib << 10) / count:.1f} bytes a"
        f" parameter at most, worker {own / count:.1f} and {shared / count:.1f} shared:"
        f" {more:+.1f} bytes"
    )
    assert more <= 2 * 4
