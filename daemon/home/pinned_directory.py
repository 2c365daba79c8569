"""A directory told apart from a later one of its name: what was removed, replaced or unmounted
takes no more writes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

Identity = tuple[int, int]


def identity(about: os.stat_result) -> Identity:
    """Device and inode: what a file is, whatever its name."""
    return about.st_dev, about.st_ino


class PinnedDirectory:
    """The directory that `path` names when this is made. Raises `OSError` where it names none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made_on = identity(os.stat(path))

    def check(self) -> None:
        """Raises `OSError` where `path` names another directory now, or none.

        The moment between this and a write stays open.
        """
        if identity(os.stat(self._path)) != self._made_on:
            raise OSError(errno.ESTALE, "another directory is in its place", str(self._path))
