"""Tests that a worker does not outlive its parent, whatever it is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon.device.recorded_events import gone_within, workers_of

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[3]
# It takes milliseconds on an idle machine.
GONE_S = 10.0

PARENT = """
import sys, trio, trio.testing
import numpy as np
from daemon.device.settings import WorkerSettings
from daemon.device.process.trainer import WorkerTrainer
from protocol.identity import Signer
from protocol.journal import TrainerReady
from protocol.run.manifest import Manifest
from protocol.ports.trainer import Lane

async def main(task):
    manifest = Manifest(name="test", task=task)
    settings = WorkerSettings(device="cpu", threads=1, allow_custom_task=True)
    trainer = WorkerTrainer(manifest, Signer(bytes(32)).peer, settings, lambda event: None)
    async with trainer.running():
        if sys.argv[2] == "importing":
            await trio.testing.wait_all_tasks_blocked()
            print("spawned", flush=True)
            await trio.sleep_forever()
        info = await trainer.describe()
        await trainer.train(np.zeros(info.parameters, np.float32), Lane(base=0, index=0, stride=1))
        print("training", flush=True)
        await trio.sleep_forever()

try:
    trio.run(main, sys.argv[1])
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@contextmanager
def parent_of(task: str, when: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a trainer in another process; yield that process and its worker's pid."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-c", PARENT, task, when]
    with subprocess.Popen(
        arguments, cwd=Path(__file__).parent, env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline().strip() in ("spawned", "training")
            (worker,) = workers_of(parent.pid)
            yield parent, worker
        finally:
            parent.kill()


@pytest.mark.parametrize("when", ["importing", "training"])
def test_a_worker_ends_when_its_parent_is_killed(when: str) -> None:
    with parent_of("byte_gpt", when) as (parent, worker):
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert gone_within(worker, GONE_S)


@pytest.mark.parametrize("task", ["Sleeps", "Holds"])
def test_a_worker_in_a_step_ends_when_its_parent_is_killed(note: Path, task: str) -> None:
    with parent_of(f"faulty_tasks:{task}", "training") as (parent, worker):
        assert note.read_text(encoding="ascii") == "in the step"
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert gone_within(worker, GONE_S)


def test_a_worker_outlives_the_pause_of_its_parent_but_not_its_end() -> None:
    with parent_of("byte_gpt", "training") as (parent, worker):
        parent.send_signal(signal.SIGSTOP)
        assert not gone_within(worker, 0.5)
        parent.send_signal(signal.SIGKILL)
        assert gone_within(worker, GONE_S)


def test_ctrl_c_reaches_the_parent_and_not_the_worker() -> None:
    """The worker has its own session, and ends after its parent ended in order."""
    with parent_of("byte_gpt", "training") as (parent, worker):
        assert os.getsid(worker) == worker
        parent.send_signal(signal.SIGINT)
        assert parent.stdout is not None
        assert parent.stdout.readline().strip() == "interrupted"
        parent.wait()
        assert gone_within(worker, GONE_S)
