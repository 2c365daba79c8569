"""A medium of files for the tests of the real disk, and what the tests look at."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from daemon.disk.file_disk import FileDisk
from protocol.ports.disk import Disk
from protocol.ports.offload import Offload, inline
from simulator.fakes.medium import PowerCut
from tests.ports.disk_kit import RUN

# The hour never changes during a test, so a disk keeps the same checkpoints every time.
NOON_NS = 20_000 * 24 * 3_600_000_000_000 + 12 * 3_600_000_000_000


class OnFiles:
    """A directory as the medium of a disk."""

    def __init__(self, root: Path, offload: Offload = inline) -> None:
        self.root = root
        self._offload = offload
        self._cut_at: int | None = None
        self._full = False

    def open(self) -> Disk:
        return FileDisk(self.root, self._offload, fault=self._step, clock_ns=lambda: NOON_NS)

    def cut_power_at(self, step: int | None) -> None:
        self._cut_at = step

    def fill(self) -> None:
        self._full = True

    def free(self) -> None:
        self._full = False

    def _step(self, step: str) -> None:
        if self._full and step in ("write", "append"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._cut_at is not None:
            self._cut_at -= 1
            if self._cut_at < 0:
                self._cut_at = None
                raise PowerCut


def checkpoints_in(root: Path) -> list[Path]:
    return sorted((root / "runs" / RUN.hex() / "checkpoints").iterdir())


def files_in(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


FOLDER = f"runs/{RUN.hex()}"


def everything_in(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


ROOT = Path(__file__).parents[2]
