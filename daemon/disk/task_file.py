"""What the task was when this home last trained a run: `<home>/runs/<run>/task`.

A model on disk is a vector. When the task's parameters have other names, shapes or another order
than then, the same vector would be read as another model, without a sign.
"""

from __future__ import annotations

from pathlib import Path

from daemon.disk.atomic import make_private_directory, write_atomically
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.run.task_digest import TaskDigest, decode_task, encode_task

TASK_FILE = "task"


def load_task(home: Path, run: Digest) -> TaskDigest | None:
    """The task of this run's model in `home`; None where there is no model, or it was not written
    down, or cannot be read.
    """
    folder = home / "runs" / run.hex()
    if not any(folder.glob("**/*.safetensors")):
        return None
    try:
        return decode_task((folder / TASK_FILE).read_bytes())
    except (OSError, PeerFault):
        return None


def save_task(home: Path, run: Digest, task: TaskDigest) -> None:
    """Durable on return. Raises `DiskFull`."""
    folder = home / "runs" / run.hex()
    make_private_directory(folder)
    write_atomically(folder / TASK_FILE, [memoryview(encode_task(task))])
