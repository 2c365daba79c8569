"""Shares three float32 vectors between node and worker: anchor, delta, inner optimizer state.

The worker gives the memory its size.
"""

from __future__ import annotations

from daemon.children import memory
from daemon.children.memory import create

__all__ = ["SharedMemory", "create", "give_size"]


def give_size(fd: int, parameters: int, inner: int) -> None:
    """Fix the size of the memory: two vectors of `parameters` and one of `inner` elements."""
    memory.give_size(fd, (parameters, parameters, inner))


class SharedMemory:
    """The three vectors, mapped into this process.

    `anchor` and `delta` have shape (parameters,), `inner` has shape (inner,). The vectors keep the
    memory alive, even after the other process is gone.
    """

    def __init__(self, fd: int, parameters: int, inner: int) -> None:
        """Map `fd`, which the caller may close afterwards.

        Raises `ValueError` where its size or its seals do not fit these vectors.
        """

        self.anchor, self.delta, self.inner = memory.map_vectors(
            fd, (parameters, parameters, inner)
        )
