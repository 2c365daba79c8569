"""Tests that a node raises its limit of open files, which strangers' sockets could use up."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.system.open_files import MOST_OPEN_FILES

REPOSITORY = Path(__file__).parents[2]
RUN = """
import resource
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
from daemon.node.app import run_trio

async def main():
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

print(run_trio(main))
"""


@pytest.mark.real
def test_the_limit_of_open_files_is_raised_before_the_node_runs() -> None:
    environ = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert int(done.stdout) == (
        MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(MOST_OPEN_FILES, hard)
    )
