"""A home whose disk fills up and disappears, under a real node."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.swarm import Swarm, hypergpud

pytestmark = [
    pytest.mark.real,
    pytest.mark.alone,
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a file system"),
]

# The states of the small model take 1 MB.
DISK = "size=24m,mode=700"
# An offer is tried again every 10 s, and each try reports the disk.
REPORTED_S = 60.0
# The node checks its home each second, and a worker on a busy machine takes a while to end.
ENDS_S = 20.0


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True, timeout=30)


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with suppress(OSError), file.open("wb", buffering=0) as ballast:
        while ballast.write(bytes(1 << 14)):
            pass


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "first"
    folder.mkdir()
    try:
        mount("-t", "tmpfs", "-o", DISK, "tmpfs", str(folder))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"nothing can be mounted here: {error.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True, timeout=30)


def test_node_says_in_one_sentence_what_is_wrong_with_its_home(tmp_path: Path, disk: Path) -> None:
    with Swarm(tmp_path) as swarm:
        node = swarm.begin("first")
        swarm.until(lambda: node.now().you.samples_pending, "it has trained")

        fill(disk / "ballast")
        swarm.until(lambda: "The disk refuses" in node.now().verdict, "a full disk", REPORTED_S)
        assert "Free some space" in node.now().verdict
        (disk / "ballast").unlink()
        swarm.until(lambda: not node.now().you.disk_refusal, "it goes on by itself", REPORTED_S)

        log = node.log()
        subprocess.run(["umount", "-l", str(disk)], check=True, timeout=30)
        assert node.wait(ENDS_S)
        assert node.ending == "ended with exit code 1"
        assert list(disk.iterdir()) == [], "nothing is written where the home was mounted"
    assert "Traceback" not in log
    assert hypergpud("status", home=disk).returncode == 3
