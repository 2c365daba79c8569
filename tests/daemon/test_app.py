"""Tests that an error at the start of a node becomes a message for a person."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.real
def test_start_with_an_unwritable_home_ends_with_a_message(tmp_path: Path) -> None:
    """A file in the place of the directory `runs` fails like a full disk."""
    (tmp_path / "runs").touch(0o600)
    command = [sys.executable, "-m", "daemon.cli.main", "start", "--home", str(tmp_path)]
    environ = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "the disk is full or not writable" in done.stderr
    assert str(tmp_path / "runs") in done.stderr
    assert "Traceback" not in done.stderr
