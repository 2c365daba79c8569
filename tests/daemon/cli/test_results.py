"""`export`, `sample` and `evaluate` on a home, with real workers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trio

from daemon.device.process.trainer import WorkerTrainer
from daemon.device.settings import WorkerSettings
from daemon.device.tasks.catalog import load_task
from daemon.disk.checkpoint_file import checkpoints_in, read_checkpoint
from daemon.disk.file_disk import FileDisk
from daemon.home.layout import ensure_home
from daemon.home.recent_state import save_recent_state
from daemon.results.run_model import model_of_home
from protocol.errors import UserError
from protocol.ports.disk_records import Checkpoint
from protocol.ports.offload import inline
from protocol.run.initial_parameters import initial_parameters
from protocol.run.manifest import Manifest, seal
from tests.daemon.certified_home import CertifiedHome, vector
from tests.daemon.cli.conftest import Hypergpud
from tests.daemon.device.conftest import TINY

GPT = Manifest(name="gpt", task="byte_gpt", task_options=TINY, seed=1)
DIGITS = Manifest(name="digits", task="simple_cnn", task_options={"width": 4}, seed=1)


async def home_of(home: Path, manifest: Manifest, numbers: tuple[int, ...] = (7,)) -> None:
    """Write a home whose checkpoint `number` holds the initial parameters times `number`."""
    ensure_home(home)
    signed = seal(manifest)
    trainer = WorkerTrainer(manifest, "", WorkerSettings(device="cpu"), lambda _: None)
    async with trainer.running():
        info = await trainer.describe()
    anchor = initial_parameters(info.specs, manifest.seed)
    save_recent_state(home, signed, 4001)
    for number in numbers:
        checkpoint = Checkpoint(
            run=signed.run,
            tip=bytes([number]) * 32,
            number=number,
            anchor=anchor * np.float32(number),
            momentum=anchor * 0,
            inner=anchor[:0],
            shapes=tuple((spec.name, spec.shape) for spec in info.specs),
            task=manifest.task,
            task_options="{}",
        )
        await FileDisk(home, inline).save_checkpoint(checkpoint, [])


@pytest.mark.real
def test_export_torch_loads_with_plain_torch(
    hypergpud: Hypergpud, home: Path, tmp_path: Path
) -> None:
    trio.run(home_of, home, DIGITS)
    file = tmp_path / "model.pt"
    done = hypergpud("export", "--format", "torch", str(file))
    assert done.returncode == 0, done.stderr
    assert "as of round 7" in done.stdout
    model = load_task("simple_cnn", {"width": 4}, WorkerSettings()).model()
    model.load_state_dict(torch.load(file, weights_only=True))
    again = hypergpud("export", "--format", "torch", str(file))
    assert (again.returncode, "exists already" in again.stderr) == (2, True)
    assert hypergpud("export", "--format", "torch", str(file), "--force").returncode == 0
    refused = hypergpud("export", "--format", "hf", str(tmp_path / "folder"))
    assert refused.returncode == 1
    assert "only the task hf_causal_lm" in refused.stderr
    assert not (tmp_path / "folder").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".model")] == []


@pytest.mark.real
def test_sample_repeats_a_text_for_a_seed(hypergpud: Hypergpud, home: Path) -> None:
    trio.run(home_of, home, GPT)
    said = [
        json.loads(hypergpud("sample", "--json", "--prompt", "def ", "--tokens", "8", *more).stdout)
        for more in ((), ("--seed", "0"), ("--seed", "1"), ("--count", "2"))
    ]
    texts = [one["samples"] for one in said]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0][0].startswith("def ")
    assert texts[3][0] == texts[0][0] != texts[3][1]
    assert said[0]["round"] == 7


@pytest.mark.real
def test_sample_shows_predictions_of_other_models(hypergpud: Hypergpud, home: Path) -> None:
    trio.run(home_of, home, DIGITS)
    done = hypergpud("sample", "--count", "3")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("labelled" in line for line in lines)
    refused = hypergpud("sample", "--prompt", "hello")
    assert refused.returncode == 1
    assert "takes no prompt" in refused.stderr


@pytest.mark.real
def test_certificate_chooses_the_model(hypergpud: Hypergpud, home: Path) -> None:
    trio.run(home_of, home, DIGITS, (5, 6, 7))
    scores = {
        named: json.loads(hypergpud("evaluate", "--json", "--certificate", named).stdout)
        for named in ("5", "0606", "7")
    }
    assert [scores[named]["round"] for named in ("5", "0606", "7")] == [5, 6, 7]
    assert len({score["loss"] for score in scores.values()}) == 3
    missing = hypergpud("evaluate", "--certificate", "4")
    assert missing.returncode == 2
    assert "full states of 5, 6, 7" in missing.stderr


def test_model_of_home_names_what_it_lacks(tmp_path: Path) -> None:
    ensure_home(tmp_path)
    made = CertifiedHome(tmp_path, 5)
    trio.run(made.write)
    # The last checkpoints are on disk, and no results.
    model = model_of_home(tmp_path, made.signed, "4", print)
    assert np.array_equal(model.parameters, vector(4, 0))
    with pytest.raises(UserError, match="no checkpoint before it"):
        model_of_home(tmp_path, made.signed, "1", print)
    with pytest.raises(UserError, match="no certificate of this run"):
        model_of_home(tmp_path, made.signed, "99", print)


async def test_a_checkpoint_names_its_task(tmp_path: Path) -> None:
    ensure_home(tmp_path)
    signed = seal(DIGITS)
    checkpoint = Checkpoint(
        run=signed.run,
        tip=bytes(32),
        number=1,
        anchor=np.ones(3, np.float32),
        momentum=np.zeros(3, np.float32),
        inner=np.zeros(0, np.float32),
        shapes=(("weight", (3,)),),
        task="simple_cnn",
        task_options='{"width":4}',
    )
    await FileDisk(tmp_path, inline).save_checkpoint(checkpoint, [])
    (entry,) = checkpoints_in(tmp_path / "runs" / signed.run.hex() / "checkpoints")
    found = read_checkpoint(entry.path, signed.run, bytes(32), 1)
    assert (found.task, found.task_options, found.shapes) == (
        "simple_cnn",
        '{"width":4}',
        (("weight", (3,)),),
    )


@pytest.mark.real
def test_task_check_prints_findings_and_its_exit_code(hypergpud: Hypergpud, home: Path) -> None:
    ensure_home(home)
    good = hypergpud("task", "check", "simple_cnn", "--option", "width=4")
    assert good.returncode == 0, good.stderr
    assert "The task can be trained in a swarm." in good.stdout
    gone = hypergpud("task", "check", "tests.daemon.device.checked_tasks:Leaves")
    assert (gone.returncode, "before it had tried the whole task" in gone.stdout) == (1, True)
    bad = hypergpud("task", "check", "torch_module", "--option", "model=os:getcwd", "--json")
    assert bad.returncode == 1
    (finding,) = json.loads(bad.stdout)
    assert finding["kind"] == "fault"
    assert "dataset" in finding["text"]
    for words, said in (
        (("task", "check"), "MODULE:CLASS or --run FILE"),
        (("task", "check", "byte_gpt", "--option", "width"), "KEY=VALUE"),
        (("model", "fetch", "smollm"), "did you mean 'smollm2'"),
    ):
        done = hypergpud(*words)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
