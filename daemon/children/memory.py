"""Flat float32 vectors in memory that two processes share.

One anonymous file (`memfd_create`), mapped by both. It has no name in any file system, so nothing
is left when both are gone, however they went. Whoever knows the vectors' lengths gives the file its
size; then it is sealed, because a file that shrinks under a mapping kills whoever touches it
(SIGBUS). The other side checks size and seals before it maps.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from protocol.averaging.vector_layout import Vector

_ALIGN = 64  # a cache line, and the widest vector load
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def create() -> int:
    """A new empty file descriptor, not inherited unless a spawn names it."""
    return os.memfd_create("hypergpu", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def _padded(count: int) -> int:
    """`count` float32 in bytes, rounded up to the alignment."""
    return -(-4 * count // _ALIGN) * _ALIGN


def give_size(fd: int, counts: Sequence[int]) -> None:
    """Make room for vectors of these lengths, for good. Pages cost nothing until touched."""
    os.ftruncate(fd, sum(map(_padded, counts)))
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)


def map_vectors(fd: int, counts: Sequence[int]) -> list[Vector]:
    """Vectors of these lengths on the file, which may be closed afterwards: they keep the memory
    alive.

    Raises `ValueError` when its size or seals are not those of these vectors.
    """
    total = sum(map(_padded, counts))
    size = os.fstat(fd).st_size
    if size != total or fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
        raise ValueError(
            f"the shared memory has {size} bytes, not {total}, or can still change its size"
        )
    memory = mmap.mmap(fd, total)
    offsets = accumulate(map(_padded, counts), initial=0)
    return [
        np.frombuffer(memory, dtype=np.float32, count=count, offset=offset)
        for count, offset in zip(counts, offsets, strict=False)
    ]
