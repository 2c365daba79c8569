"""The port that runs blocking or numeric work outside the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Offload(Protocol):
    """Runs blocking or numeric work.

    A real node uses a thread. A simulated node runs the work inline, because its clock cannot see
    threads.
    """

    async def __call__(self, work: Callable[[], T], /) -> T: ...


async def inline(work: Callable[[], T], /) -> T:
    """Run `work` at once: the simulator's `Offload`."""
    return work()
