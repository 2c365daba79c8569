"""What the worker's tests share: trainers of tiny jobs, and a working directory with tasks of the
tests' own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.device.process.trainer import WorkerTimeouts, WorkerTrainer
from daemon.device.settings import WorkerSettings
from protocol.identity import Signer
from protocol.run.manifest import Inner, Manifest
from protocol.run.task_digest import TaskDigest
from tests.daemon.device.recorded_events import Happened

TINY = {"layers": 1, "heads": 2, "width": 16, "context": 16, "corpus_bytes": 100_000}
PROMPT = WorkerTimeouts(first_wait_s=0.05, longest_wait_s=0.2)

MakeTrainer = Callable[..., WorkerTrainer]


@pytest.fixture
def faulty_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with the module `faulty_tasks`, as a user's own task would lie there."""
    monkeypatch.chdir(Path(__file__).parent)


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A named pipe: reading it waits until a task of `faulty_tasks` has something to say."""
    pipe = tmp_path / "note"
    os.mkfifo(pipe)
    monkeypatch.setenv("HYPERGPU_TEST_NOTE", str(pipe))
    return pipe


@pytest.fixture
def happened() -> Happened:
    return Happened()


@pytest.fixture
def make_trainer(happened: Happened) -> MakeTrainer:
    """Gives a trainer that was not started, of "byte_gpt" or "faulty_tasks:Class"."""

    def make(
        task: str = "byte_gpt",
        *,
        options: dict[str, object] | None = None,
        timeouts: WorkerTimeouts = PROMPT,
        allow: bool = True,
        before: TaskDigest | None = None,
    ) -> WorkerTrainer:
        chosen = options if options is not None else (TINY if task == "byte_gpt" else {})
        manifest = Manifest(name="test", task=task, task_options=chosen, inner=Inner(batch_size=4))
        settings = WorkerSettings(device="cpu", threads=1, allow_custom_task=allow)
        return WorkerTrainer(
            manifest,
            Signer(bytes(32)).peer,
            settings,
            happened,
            timeouts=timeouts,
            previous_task=before,
        )

    return make
