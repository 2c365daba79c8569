"""Tests of the task torch_module: modules, data sets and losses named by import path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from daemon.device.model.author_code import TaskFault
from daemon.device.process.trainer import WorkerTrainer
from daemon.device.settings import WorkerSettings
from daemon.device.tasks.catalog import load_task, locate
from daemon.device.tasks.task import Task
from daemon.services.training.genesis import genesis_parameters
from protocol.errors import UserError
from protocol.ports.offload import inline
from protocol.run.manifest import Manifest
from tests.daemon.device.loops import LANE, loop_of

ALLOWED = WorkerSettings(device="cpu", threads=1, allow_custom_task=True)
HERE = "tests.daemon.device.plain_modules"
OPTIONS: dict[str, int | float | str | bool] = {
    "model": f"{HERE}:Net",
    "model_arguments": '{"width": 4}',
    "dataset": f"{HERE}:samples",
    "loss": "torch.nn.functional:mse_loss",
}


def task_of(**options: int | float | str | bool) -> Task:
    return load_task("torch_module", {**OPTIONS, **options}, ALLOWED)


def test_it_needs_permission() -> None:
    with pytest.raises(UserError, match="TASK_NOT_ALLOWED"):
        locate("torch_module", WorkerSettings())
    assert locate("torch_module", ALLOWED)[1] == "TorchModule"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": "torch.nn:MSELoss"},
        {"dataset": f"{HERE}:Rows", "dataset_arguments": '{"count": 50}'},
        {"dataset": f"{HERE}:named_rows"},
        {"model": f"{HERE}:WithLoss", "loss": ""},
    ],
)
def test_a_module_learns(options: dict[str, int | float | str | bool]) -> None:
    loop, _ = loop_of(task_of(**options), "torch_module")
    loop.train(LANE, 60)
    losses = []
    while loop.training:
        loop.step()
        losses.append(loop.progress().loss or 0.0)
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_the_modules_source_is_part_of_the_digest() -> None:
    names = [part.name for part in loop_of(task_of(), "torch_module")[0].describe().source]
    assert names[0] == "task torch_module"
    assert f"module {HERE}" in names


def test_initial_values_come_from_the_seed_or_from_the_model() -> None:
    seeded = loop_of(task_of(), "torch_module")[0]
    assert {spec.init for spec in seeded.specs} == {"uniform", "zeros"}
    given = loop_of(task_of(initial="model"), "torch_module")[0]
    assert {spec.init for spec in given.specs} == {"given"}
    torch.manual_seed(3)
    assert given._net.flat.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": f"{HERE}:Nett"}, "has no Nett"),
        ({"model": "no_such_module:Net"}, "no_such_module"),
        ({"model": "Net"}, "written module:name"),
        ({"model_arguments": "width=4"}, "not a JSON object"),
        ({"loss": f"{HERE}:nothing"}, "has no nothing"),
    ],
)
def test_a_wrong_path_is_explained(
    options: dict[str, int | float | str | bool], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        task_of(**options)


def test_a_failing_data_set_names_its_line() -> None:
    with pytest.raises(TaskFault, match=r"plain_modules\.py:\d+"):
        task_of(dataset=f"{HERE}:broken")


def test_it_finds_modules_beside_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside_node.py").write_text("from torch import nn\nNet = nn.Linear\n")
    monkeypatch.chdir(tmp_path)
    task = task_of(model="beside_node:Net", model_arguments='{"in_features":1,"out_features":1}')
    assert isinstance(task.model(), torch.nn.Linear)


@pytest.mark.real
async def test_a_node_begins_with_the_values_of_the_model() -> None:
    options: dict[str, int | float | str | bool] = {**OPTIONS, "initial": "model"}
    manifest = Manifest(name="given", task="torch_module", task_options=options, seed=3)
    trainer = WorkerTrainer(manifest, "", ALLOWED, lambda _: None)
    async with trainer.running():
        info = await trainer.describe()
        found = await genesis_parameters(trainer, info, manifest.seed, inline)
        again = await genesis_parameters(trainer, info, manifest.seed, inline)
    assert {spec.init for spec in info.specs} == {"given"}
    # The worker seeds torch with the run's seed, loads the task and makes the model.
    torch.manual_seed(3)
    wanted = torch.nn.utils.parameters_to_vector(task_of(initial="model").model().parameters())
    assert np.array_equal(found, wanted.detach().numpy())
    assert np.array_equal(found, again)
