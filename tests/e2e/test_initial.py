"""A run begins from weights: the first node has them in a file, the second gets them from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from daemon.device.model.flat_model import FlatModel
from daemon.device.settings import WorkerSettings
from daemon.device.tasks.catalog import load_task
from daemon.disk.initial_file import INITIAL_FILE, InitialFile
from daemon.home.recent_state import last_run
from tests.e2e.swarm import RUN, Swarm

pytestmark = [pytest.mark.real, pytest.mark.swarm, pytest.mark.timeout(240)]
OPEN = '\n[admission]\npolicy = "open"\n'


def test_a_run_begins_from_weights(tmp_path: Path) -> None:
    task = load_task("simple_cnn", {"width": 4}, WorkerSettings())
    net = FlatModel(task, torch.device("cpu"))
    torch.manual_seed(1)
    net.flat.uniform_(-0.1, 0.1)
    weights = tmp_path / "weights.safetensors"
    save_file({name: part.detach().numpy().copy() for name, part, _ in net.moved}, weights)
    with Swarm(tmp_path, run=f"rules = 4\n{RUN}{OPEN}") as swarm:
        words = ["start", "--run", str(swarm.run_file), "--from", str(weights)]
        first = swarm._start("first", words, {})
        second = swarm.join("second", first)
        swarm.until_round(2, first, second)
        for daemon in (first, second):
            signed = last_run(daemon.home)
            assert signed is not None
            assert signed.open().initial
            kept = InitialFile(daemon.home, signed.run).load()
            assert kept is not None, INITIAL_FILE
            assert np.array_equal(kept, net.flat.numpy())
        swarm.stop(second, first)
        assert swarm.agreement(first, second).agreed
