"""What ends a node becomes a message to whoever started it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.real
def test_a_disk_that_takes_no_manifest_ends_the_start_with_a_message(tmp_path: Path) -> None:
    """A real start, up to where the run is written down; a file in the place of its directory
    refuses that, as a full disk does.
    """
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
