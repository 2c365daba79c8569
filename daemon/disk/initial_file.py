"""Keeps the weights with which a run begins: `<home>/runs/<run>/initial.safetensors`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from daemon.disk.atomic import make_private_directory, write_atomically
from daemon.disk.tensors import DamagedFile, encode, place_of, read
from protocol.averaging.vector_layout import Vector
from protocol.digest import Digest

INITIAL_FILE = "initial.safetensors"
_TENSOR = "parameters"


class InitialFile:
    """The file of one run. Blocking."""

    def __init__(self, home: Path, run: Digest) -> None:
        self._path = home / "runs" / run.hex() / INITIAL_FILE

    def exists(self) -> bool:
        """Return whether the file exists, damaged or not."""
        return self._path.is_file()

    def load(self) -> Vector | None:
        """Return the weights, shape (parameters,); None where they are absent or damaged."""
        try:
            found = read(self._path)[0].get(_TENSOR)
        except (DamagedFile, OSError):
            return None
        return None if found is None or found.dtype != np.float32 else found.astype(np.float32)

    def save(self, parameters: Vector) -> None:
        """Write the weights, durable on return. Raises `DiskFull`."""
        make_private_directory(self._path.parent)
        write_atomically(self._path, encode({_TENSOR: parameters}, {}))

    def read(self, offset: int, size: int) -> bytes | None:
        """Return bytes of the weights as little-endian float32; None where they cannot be read."""
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            start, stop = place_of(handle, (_TENSOR,))
            return os.pread(handle, max(0, min(size, stop - start - offset)), start + offset)
        except (DamagedFile, OSError):
            return None
        finally:
            os.close(handle)
