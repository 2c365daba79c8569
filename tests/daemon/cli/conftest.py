"""Commands as real processes with a home of their own; only the training is simulated."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FAKE_NODE = Path(__file__).parents[1] / "fake_node"
REPOSITORY = Path(__file__).parents[3]

Hypergpud = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def environ(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HYPERGPU_")}
    return kept | {
        "PYTHONPATH": os.pathsep.join([str(FAKE_NODE), str(REPOSITORY)]),
        "HYPERGPU_HOME": str(home),
    }


@pytest.fixture
def hypergpud(environ: dict[str, str]) -> Hypergpud:
    def call(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "daemon.cli.main", *arguments]
        return subprocess.run(
            command, env=environ | more, capture_output=True, text=True, timeout=60, check=False
        )

    return call
