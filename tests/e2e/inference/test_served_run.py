"""A model that our own swarm trained, served by three stages: the text of `hypergpud sample`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from daemon.demo.process import Lifeline
from protocol.run.manifest import Manifest, seal
from tests.daemon.cli.test_results import home_of
from tests.e2e.inference.stage_swarm import StageDaemon

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(600)]

OPTIONS = {"layers": 4, "heads": 2, "width": 32, "context": 64}
GPT = Manifest(name="gpt", task="byte_gpt", task_options=OPTIONS, seed=1)
ASK = ("--json", "--tokens", "24", "--seed", "5", "--temperature", "0.9")


def call(home: Path, *arguments: str) -> dict[str, object]:
    """The result of a command, from a home."""
    kept = {name: value for name, value in os.environ.items() if "HYPERGPU" not in name}
    environ = kept | {"HYPERGPU_HOME": str(home), "HYPERGPU_NETWORK_LISTEN_HOST": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-m", "daemon.cli.main", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_served_run_gives_the_text_of_sample(tmp_path: Path) -> None:
    homes = [tmp_path / f"home-{index}" for index in range(3)]
    trio.run(home_of, homes[0], GPT)
    for home in homes[1:]:
        shutil.copytree(homes[0], home)
    run = seal(GPT).run.hex()
    sampled = call(homes[0], "sample", run, "--prompt", "def main", *ASK)
    lifeline = Lifeline()
    stages = [
        StageDaemon(home, run, layers, lifeline)
        for home, layers in zip(homes, ("0:1", "1:3", "3:4"), strict=True)
    ]
    try:
        stages[0].start()
        address = stages[0].wait_ready()
        for stage in stages[1:]:
            stage.start(address)
        for stage in stages[1:]:
            stage.wait_ready()
        served = call(tmp_path / "client", "generate", "def main", "--join", address, *ASK)
    finally:
        for stage in stages:
            stage.end()
        lifeline.close()
    assert served["text"] == sampled["samples"][0]  # type: ignore[index]
    assert len(served["stages"]) == 3  # type: ignore[arg-type]
