"""Tests that a node and `from hypergpu import Task` do not import torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "module",
    [
        "hypergpu",
        "daemon.device.process.trainer",
        "daemon.device.main",
        "protocol.run.initial_parameters",
        "protocol.run.data_order",
    ],
)
def test_the_module_imports_no_heavy_library(module: str) -> None:
    heavy = {"torch", "libp2p", "hivemind", "aiohttp"}
    code = f"import sys, {module}; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == ""
