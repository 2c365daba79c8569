"""`hypergpud bench targets` as a user runs it: it ends by itself and leaves no process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.processes import Process, descendants, still_running, until

# Three minutes on an idle machine.
MOST_S = 400.0
LOOK_S = 0.5


@pytest.mark.real
@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_targets_command_measures_every_row_and_ends(tmp_path: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "daemon.cli.main", "bench", "targets", "--json"],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    family: set[Process] = set()
    deadline = time.monotonic() + MOST_S
    try:
        while running.poll() is None:
            assert time.monotonic() < deadline, f"it did not end within {MOST_S:.0f} s"
            family.update(descendants(running.pid))
            time.sleep(LOOK_S)
    finally:
        running.kill()
    assert running.stdout is not None
    rows = json.loads(running.stdout.read())
    # Other load decides what passes. Every value must be measured.
    assert all(row["value"] is not None for row in rows), rows
    assert [row["target"]["name"] for row in rows] == [
        "aggregation, 10 nodes",
        "training, 10 nodes",
        "memory, 10 nodes in all",
        "API",
        "detection of a lost member",
        "disk, a round of 5 s, int4",
        "100 nodes against 10",
    ]
    assert running.returncode == (0 if all(row["passed"] for row in rows) else 1)
    assert len(family) >= 40, "ten peers, and ten daemons with guard and worker"
    until(lambda: not still_running(family), "all its processes have ended", 10.0)
    assert not list(tmp_path.glob("hypergpu-*")), "its homes are removed"
