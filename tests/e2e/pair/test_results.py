"""A machine that never trained reads the model of a running swarm: export, evaluate and sample."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.e2e.pair.conftest import Pair

pytestmark = [
    pytest.mark.real,
    pytest.mark.swarm,
    pytest.mark.xdist_group("pair"),
    pytest.mark.timeout(180),
]


def hypergpud(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "daemon.cli.main", "--home", str(home), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)


def test_a_stranger_exports_the_swarms_model(pair: Pair, tmp_path: Path) -> None:
    join, file = ("--join", pair.target.now().you.addresses[0]), tmp_path / "model.safetensors"
    done = hypergpud(tmp_path / "home", "export", "--json", *join, str(file))
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)
    assert written["round"] >= 1
    assert written["run"] == pair.target.now().run.run
    tensors = load_file(file)
    assert tensors["first.weight"].shape == (4, 1, 3, 3)
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())
    said = hypergpud(tmp_path / "home", "sample", "--json", *join, "--count", "2")
    assert said.returncode == 0, said.stderr
    assert len(json.loads(said.stdout)["samples"]) == 2


def test_a_home_rebuilds_a_certificate_from_results(pair: Pair, tmp_path: Path) -> None:
    """Only the first certificate has a full state on disk; the others follow by results."""
    target = pair.target
    pair.until_round(3, target)
    file = tmp_path / "model.safetensors"
    done = hypergpud(target.home, "export", "--json", "--certificate", "3", str(file))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["round"] == 3
    first = hypergpud(target.home, "export", "--certificate", "1", str(tmp_path / "first"))
    assert first.returncode == 0, first.stderr
    assert not np.array_equal(
        load_file(file)["first.weight"], load_file(tmp_path / "first")["first.weight"]
    )
