"""Tests of the file that describes the task of a home's model."""

from __future__ import annotations

from pathlib import Path

from daemon.disk.task_file import TASK_FILE, load_task, save_task
from protocol.run.task_digest import TaskDigest, TensorPart, changed_parameters
from tests.protocol.rounds import RUN

TASK = TaskDigest(
    parameters=(TensorPart(name="a.weight", shape=(4, 4), dtype="float32"),), options="n = 1"
)


def test_load_task_reads_the_file_where_a_model_exists(tmp_path: Path) -> None:
    save_task(tmp_path, RUN, TASK)
    assert load_task(tmp_path, RUN) is None, "without a model, any task is allowed"
    (tmp_path / "runs" / RUN.hex() / "ledger.safetensors").touch()
    assert load_task(tmp_path, RUN) == TASK


def test_load_task_ignores_a_damaged_file(tmp_path: Path) -> None:
    save_task(tmp_path, RUN, TASK)
    folder = tmp_path / "runs" / RUN.hex()
    (folder / "ledger.safetensors").touch()
    (folder / TASK_FILE).write_bytes(b"\xff" * 10)
    assert load_task(tmp_path, RUN) is None


def test_changed_parameters_names_parameters_and_ignores_code() -> None:
    other = TaskDigest(parameters=(TensorPart(name="b.weight", shape=(4, 4), dtype="float32"),))
    assert (
        changed_parameters(TASK, other)
        == "the model has parameter 1 `a.weight`, the task `b.weight`"
    )
    assert changed_parameters(TASK, TaskDigest(parameters=TASK.parameters, options="n = 2")) == ""
