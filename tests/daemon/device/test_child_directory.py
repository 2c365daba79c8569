"""Where a child process begins."""

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


async def test_a_child_process_of_a_node_whose_directory_is_gone_begins_in_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MKL refuses to load in a directory that does not exist any more.

    The child here is a module that needs no worker.
    """
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    child: ChildProcess[bytes] = ChildProcess(
        "timeit", msgspec.msgpack.decode, logging.getLogger("child"), environment={}
    )
    assert directory_of(child.pid) == "/"
    child.kill("seen")
    with trio.fail_after(30):
        await child.ended()
        await child.close_errors()
