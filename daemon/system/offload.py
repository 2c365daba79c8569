"""Runs blocking and numeric work in threads, so that the event loop keeps serving its streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")


async def in_thread(work: Callable[[], T], /) -> T:
    """Run `work` in a thread; return what it returns and raise what it raises.

    Waits for `work` to end, even when the caller is cancelled.
    """
    return await trio.to_thread.run_sync(work)


async def in_abandonable_thread(work: Callable[[], T], /) -> T:
    """Run `work` in a thread that a cancelled caller does not wait for.

    Use this for calls that may hang, such as a look at a network's file system. The thread of a
    cancelled call runs on, and its result is dropped.
    """
    # trio-typing's stubs have the argument's old name.
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)  # type: ignore[call-arg]
