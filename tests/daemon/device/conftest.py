"""Fixtures of the worker's tests: trainers of tiny jobs, and tasks of the tests' own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.device.process.trainer import WorkerTimeouts, WorkerTrainer
from daemon.device.settings import WorkerSettings
from daemon.home.batch_parts import BatchPartFile
from protocol.identity import Signer
from protocol.run.manifest import Inner, Manifest
from protocol.run.task_digest import TaskDigest
from tests.daemon.device.recorded_events import RecordedEvents

TINY = {"layers": 1, "heads": 2, "width": 16, "context": 16, "corpus_bytes": 100_000}
PROMPT = WorkerTimeouts(first_wait_s=0.05, longest_wait_s=0.2)

MakeTrainer = Callable[..., WorkerTrainer]


@pytest.fixture
def faulty_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enter the folder of the module `faulty_tasks`, like a user with a task of their own."""
    monkeypatch.chdir(Path(__file__).parent)


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a named pipe. Reading it waits for the text of a task in `faulty_tasks`."""
    pipe = tmp_path / "note"
    os.mkfifo(pipe)
    monkeypatch.setenv("HYPERGPU_TEST_NOTE", str(pipe))
    return pipe


@pytest.fixture
def events() -> RecordedEvents:
    return RecordedEvents()


@pytest.fixture
def make_trainer(events: RecordedEvents) -> MakeTrainer:
    """Return a function that makes a trainer of "byte_gpt" or "faulty_tasks:Class"."""

    def make(
        task: str = "byte_gpt",
        *,
        options: dict[str, object] | None = None,
        timeouts: WorkerTimeouts = PROMPT,
        allow: bool = True,
        previous_task: TaskDigest | None = None,
        parts: BatchPartFile | None = None,
    ) -> WorkerTrainer:
        chosen = options if options is not None else (TINY if task == "byte_gpt" else {})
        manifest = Manifest(name="test", task=task, task_options=chosen, inner=Inner(batch_size=4))
        settings = WorkerSettings(device="cpu", threads=1, allow_custom_task=allow)
        return WorkerTrainer(
            manifest,
            Signer(bytes(32)).peer,
            settings,
            events,
            timeouts=timeouts,
            previous_task=previous_task,
            parts=parts,
        )

    return make
