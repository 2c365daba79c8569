"""A node raises its own limit of open files: strangers' sockets must leave some for its disk."""

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
from daemon.node.app import _to_the_end

async def main():
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

print(_to_the_end(main))
"""


@pytest.mark.real
def test_allow_open_files_comes_before_all_that_a_node_does() -> None:
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
