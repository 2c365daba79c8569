"""What a home knows of the task whose model it holds."""

from __future__ import annotations

from pathlib import Path

from daemon.disk.task_file import TASK_FILE, load_task, save_task
from protocol.run.task_digest import TaskDigest, TensorPart, changed_parameters
from tests.protocol.rounds import RUN

TASK = TaskDigest(
    parameters=(TensorPart(name="a.weight", shape=(4, 4), dtype="float32"),), options="n = 1"
)


def test_it_is_read_where_there_is_a_model(tmp_path: Path) -> None:
    save_task(tmp_path, RUN, TASK)
    assert load_task(tmp_path, RUN) is None, "without a model every task is right"
    (tmp_path / "runs" / RUN.hex() / "ledger.safetensors").touch()
    assert load_task(tmp_path, RUN) == TASK


def test_damage_reads_as_nothing(tmp_path: Path) -> None:
    save_task(tmp_path, RUN, TASK)
    folder = tmp_path / "runs" / RUN.hex()
    (folder / "ledger.safetensors").touch()
    (folder / TASK_FILE).write_bytes(b"\xff" * 10)
    assert load_task(tmp_path, RUN) is None


def test_other_parameters_are_named_and_other_code_is_not_in_the_way() -> None:
    other = TaskDigest(parameters=(TensorPart(name="b.weight", shape=(4, 4), dtype="float32"),))
    assert (
        changed_parameters(TASK, other)
        == "the model has parameter 1 `a.weight`, the task `b.weight`"
    )
    assert changed_parameters(TASK, TaskDigest(parameters=TASK.parameters, options="n = 2")) == ""
