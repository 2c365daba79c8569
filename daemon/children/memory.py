"""Shares flat float32 vectors between two processes.

Both processes map one anonymous file (`memfd_create`). The file has no name, so it vanishes with
the processes. The process that knows the vectors' lengths sets the file's size and seals it: a file
that shrinks under a mapping would kill each process that touches it (SIGBUS). The other process
checks the size and the seals before it maps the file.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from collections.abc import Sequence
from functools import cache
from itertools import accumulate

import numpy as np

from protocol.averaging.vector_layout import Vector

# A cache line, and the widest vector load.
_ALIGN = 64
# Punches a hole into a shared file (madvise(2)).
_MADV_REMOVE = 9
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def create() -> int:
    """Return a new empty file, which only a spawn that names it passes on."""
    return os.memfd_create("hypergpu", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def _padded(count: int) -> int:
    """Return the size of `count` float32 in bytes, rounded up to the alignment."""
    return -(-4 * count // _ALIGN) * _ALIGN


def give_size(fd: int, counts: Sequence[int]) -> None:
    """Fix the size for vectors of these lengths. Pages cost nothing until they are touched."""
    os.ftruncate(fd, sum(map(_padded, counts)))
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)


def free_pages(vector: Vector) -> None:
    """Free the memory of a mapped vector, for all processes. Its values are zeros afterwards.

    Pages that the vector shares with its neighbours stay.
    """
    start = -(-vector.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    stop = (vector.ctypes.data + vector.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if start < stop:
        # Memory that cannot be freed stays as it is.
        _libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), _MADV_REMOVE)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def map_vectors(fd: int, counts: Sequence[int]) -> list[Vector]:
    """Return vectors of these lengths over the file, which the caller may close afterwards.

    The vectors keep the memory alive. Raises `ValueError` where the size or the seals do not fit.
    """
    total = sum(map(_padded, counts))
    size = os.fstat(fd).st_size
    if size != total or fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
        raise ValueError(
            f"the shared memory has {size} bytes, not {total}, or its size can still change"
        )
    memory = mmap.mmap(fd, total)
    offsets = accumulate(map(_padded, counts), initial=0)
    return [
        np.frombuffer(memory, dtype=np.float32, count=count, offset=offset)
        for count, offset in zip(counts, offsets, strict=False)
    ]
