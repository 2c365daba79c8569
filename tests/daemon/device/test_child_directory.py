"""Tests of the working directory of a child process."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec
import pytest
import trio

from daemon.children.process import ChildProcess

pytestmark = pytest.mark.real


def directory_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/cwd")


async def test_a_child_of_a_node_without_a_working_directory_starts_in_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MKL does not load in a directory that no longer exists."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    # Any module serves as the child.
    child: ChildProcess[bytes] = ChildProcess(
        "timeit", msgspec.msgpack.decode, logging.getLogger("child"), environment={}
    )
    assert directory_of(child.pid) == "/"
    child.kill("the test has seen it")
    with trio.fail_after(30):
        await child.ended()
        await child.close_errors()
