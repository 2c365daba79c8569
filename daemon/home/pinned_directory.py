"""Recognizes a directory that was removed, replaced or unmounted, so that nothing writes there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

Identity = tuple[int, int]


def identity(about: os.stat_result) -> Identity:
    """Return the device and the inode, which identify a file whatever its name."""
    return about.st_dev, about.st_ino


class PinnedDirectory:
    """The directory that `path` names at construction. Raises `OSError` where there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made_on = identity(os.stat(path))

    def check(self) -> None:
        """Raise `OSError` where `path` now names another directory, or none.

        The directory may still be replaced between this check and a write.
        """
        if identity(os.stat(self._path)) != self._made_on:
            raise OSError(errno.ESTALE, "another directory has replaced it", str(self._path))
