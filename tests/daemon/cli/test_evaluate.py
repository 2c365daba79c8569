"""`evaluate` scores the newest model of a home, with a real worker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from daemon.config.settings import Config
from daemon.device.process.trainer import WorkerTrainer
from daemon.device.settings import WorkerSettings
from daemon.disk.file_disk import FileDisk
from daemon.home.layout import ensure_home
from daemon.home.recent_state import save_recent_state
from daemon.results.model_choice import ModelChoice
from daemon.results.opened_model import opened_model
from protocol.errors import UserError
from protocol.ports.disk_records import Checkpoint
from protocol.ports.offload import inline
from protocol.run.initial_parameters import initial_parameters
from protocol.run.manifest import Manifest, SignedManifest, seal
from tests.daemon.certified_home import CertifiedHome

DIGITS = Manifest(
    name="digits", task="simple_cnn", task_options={"data": "digits", "width": 4}, seed=1
)


async def home_at_genesis(home: Path) -> SignedManifest:
    """Write a home with one checkpoint: the initial parameters of a small task."""
    ensure_home(home)
    signed = seal(DIGITS)
    async with (trainer := WorkerTrainer(DIGITS, "", WorkerSettings(), lambda _: None)).running():
        info = await trainer.describe()
    anchor = initial_parameters(info.specs, DIGITS.seed)
    save_recent_state(home, signed, 4001)
    checkpoint = Checkpoint(
        run=signed.run,
        tip=bytes(32),
        number=7,
        anchor=anchor,
        momentum=anchor * 0,
        inner=anchor[:0],
        shapes=tuple((spec.name, spec.shape) for spec in info.specs),
        stood=b"",
    )
    await FileDisk(home, inline).save_checkpoint(checkpoint, [])
    return signed


def evaluated(home: Path, *options: str) -> str:
    """What `hypergpud evaluate` prints."""
    command = [sys.executable, "-m", "daemon.cli.main", "evaluate", "--home", str(home), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.real
def test_evaluate_prints_the_held_out_loss_of_the_newest_model(tmp_path: Path) -> None:
    home = tmp_path / "home"
    signed = trio.run(home_at_genesis, home)
    scored = json.loads(evaluated(home, "--json"))
    assert scored["run"] == signed.run.hex()
    assert scored["round"] == 7
    # Ten classes, and no training.
    assert 2.0 < scored["loss"] < 3.0
    assert 50 <= scored["samples"] <= 1024
    assert "Held-out loss 2." in evaluated(home)


@pytest.mark.real
async def test_evaluate_refuses_a_model_of_another_size(tmp_path: Path) -> None:
    ensure_home(tmp_path / "home")
    made = CertifiedHome(tmp_path / "home", 1, seal(DIGITS))
    await made.write()
    with pytest.raises(UserError, match="another model"):
        async with opened_model(Config(home=made.root), ModelChoice(), print):
            pass
