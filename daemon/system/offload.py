"""The real `Offload`: numeric and blocking work leaves the event loop to its streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")


async def in_thread(work: Callable[[], T], /) -> T:
    """What `work` returns, from a thread; raises what it raises.

    Waited for to its end, cancelled or not.
    """
    return await trio.to_thread.run_sync(work)
