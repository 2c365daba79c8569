"""Shares four float32 vectors between node and worker.

They are the anchor, the delta, the inner optimizer's state, and parameters that are scored.

The worker gives the memory its size.
"""

from __future__ import annotations

from daemon.children import memory
from daemon.children.memory import create, free_pages

__all__ = ["SharedMemory", "create", "free_pages", "give_size"]


def give_size(fd: int, parameters: int, inner: int) -> None:
    """Fix the size of the memory: three vectors of `parameters` and one of `inner` elements."""
    memory.give_size(fd, (parameters, parameters, inner, parameters))


class SharedMemory:
    """The four vectors, mapped into this process.

    `anchor`, `delta` and `scored` have shape (parameters,), `inner` has shape (inner,). The vectors
    keep the memory alive, even after the other process is gone.
    """

    def __init__(self, fd: int, parameters: int, inner: int) -> None:
        """Map `fd`, which the caller may close afterwards.

        Raises `ValueError` where its size or its seals do not fit these vectors.
        """

        self.anchor, self.delta, self.inner, self.scored = memory.map_vectors(
            fd, (parameters, parameters, inner, parameters)
        )
