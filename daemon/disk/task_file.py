"""Stores the digest of the task that last trained a run: `<home>/runs/<run>/task`.

A model on disk is a flat vector. A task whose parameters have other names, shapes or another order
would read the same vector as another model, and no error would show it.
"""

from __future__ import annotations

from pathlib import Path

from daemon.disk.atomic import make_private_directory, write_atomically
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.run.task_digest import TaskDigest, decode_task, encode_task

TASK_FILE = "task"


def load_task(home: Path, run: Digest) -> TaskDigest | None:
    """Return the task of this run's model in `home`.

    Returns None where the home has no model, or where the file is missing or unreadable.
    """
    folder = home / "runs" / run.hex()
    if not any(folder.glob("**/*.safetensors")):
        return None
    try:
        return decode_task((folder / TASK_FILE).read_bytes())
    except (OSError, PeerFault):
        return None


def save_task(home: Path, run: Digest, task: TaskDigest) -> None:
    """Write the task's digest, durable on return. Raises `DiskFull`."""

    folder = home / "runs" / run.hex()
    make_private_directory(folder)
    write_atomically(folder / TASK_FILE, [memoryview(encode_task(task))])
