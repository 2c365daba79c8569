"""What node and worker share: anchor, delta and the inner optimizer's state, as flat float32.

The worker gives the memory its size.
"""

from __future__ import annotations

from daemon.children import memory
from daemon.children.memory import create

__all__ = ["SharedMemory", "create", "give_size"]


def give_size(fd: int, parameters: int, inner: int) -> None:
    """The worker's part: make room for two vectors of `parameters` and one of `inner`, for good."""
    memory.give_size(fd, (parameters, parameters, inner))


class SharedMemory:
    """The mapping.

    `anchor` and `delta` have shape (parameters,), `inner` (inner,). Views keep the memory alive
    after everything else is gone.
    """

    def __init__(self, fd: int, parameters: int, inner: int) -> None:
        """Maps `fd`, which may be closed afterwards.

        Raises `ValueError` when its size or seals are not those of these vectors.
        """
        self.anchor, self.delta, self.inner = memory.map_vectors(
            fd, (parameters, parameters, inner)
        )
