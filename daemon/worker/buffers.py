"""The memory that node and worker share: anchor, delta and the inner optimizer's state, as flat float32.

One anonymous file (`memfd_create`), mapped by both. It has no name in any file system, so nothing is left when both are gone, however
they went. The worker knows the model's size and gives the file its size; then it seals it, because a file that shrinks under a
mapping kills whoever touches it (SIGBUS). The node checks size and seals before it maps.
"""

from __future__ import annotations

import fcntl
import mmap
import os

import numpy as np

from protocol.ports import Vector

_ALIGN = 64  # a cache line, and the widest vector load
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def create() -> int:
    """A new empty file descriptor, not inherited unless a spawn names it."""
    return os.memfd_create("hypergpu", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def _padded(count: int) -> int:
    """`count` float32 in bytes, rounded up to the alignment."""
    return -(-4 * count // _ALIGN) * _ALIGN


def _total(parameters: int, inner: int) -> int:
    return 2 * _padded(parameters) + _padded(inner)


def give_size(fd: int, parameters: int, inner: int) -> None:
    """The worker's part: make room for two vectors of `parameters` and one of `inner`, for good. Pages cost nothing until touched."""
    os.ftruncate(fd, _total(parameters, inner))
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)


class Buffers:
    """The mapping. `anchor` and `delta` have shape (parameters,), `inner` (inner,). Views keep the memory alive after everything else is gone."""

    def __init__(self, fd: int, parameters: int, inner: int) -> None:
        """Maps `fd`, which may be closed afterwards. Raises `ValueError` when its size or seals are not those of these vectors."""
        total = _total(parameters, inner)
        size = os.fstat(fd).st_size
        if size != total or fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            raise ValueError(f"the shared memory has {size} bytes, not {total}, or can still change its size")
        self._memory = mmap.mmap(fd, total)

        def vector(offset: int, count: int) -> Vector:
            return np.frombuffer(self._memory, dtype=np.float32, count=count, offset=offset)

        self.anchor = vector(0, parameters)
        self.delta = vector(_padded(parameters), parameters)
        self.inner = vector(2 * _padded(parameters), inner)
