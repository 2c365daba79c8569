"""The wish to leave a demo, as a signal brings it.

Not a `threading.Event`: its `set` takes the lock that `wait` holds for most of its bytecodes, and a
handler runs in the thread that it interrupts, so that Ctrl-C in the wrong microsecond would end
nothing and hold everything.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


class StopRequest:
    """Set once, from a signal's handler or from anywhere else, without a lock."""

    def __init__(self) -> None:
        self._heard, self._told = os.pipe()
        os.set_blocking(self._told, False)
        self._wished = False

    def is_set(self) -> bool:
        return self._wished

    def set(self) -> None:
        self._wished = True
        # The pipe is full of wishes: the one who waits wakes all the same.
        with suppress(BlockingIOError):
            os.write(self._told, b"\0")

    def wait(self, timeout_s: float) -> bool:
        """Whether it is wished, at the latest after `timeout_s`."""
        if not self._wished:
            select.select([self._heard], [], [], timeout_s)
        return self._wished

    def close(self) -> None:
        os.close(self._heard)
        os.close(self._told)


@contextmanager
def until_signalled() -> Iterator[StopRequest]:
    """A wish that the first SIGINT, SIGTERM or SIGHUP makes; the second raises `KeyboardInterrupt`."""
    leave = StopRequest()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if leave.is_set():
            raise KeyboardInterrupt
        leave.set()

    before = {
        number: signal.signal(number, on_signal)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield leave
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        leave.close()
