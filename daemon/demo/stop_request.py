"""A request to stop the demo, set by a signal handler.

A `threading.Event` does not work here. Its `set` acquires the lock that `wait` holds for most of
its bytecodes, and a signal handler runs in the thread that it interrupts. Ctrl-C in the wrong
microsecond would deadlock.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


class StopRequest:
    """A flag that a signal handler can set without a lock, and that wakes the waiting thread."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        # If the pipe is full, the waiting thread wakes up anyway.
        with suppress(BlockingIOError):
            os.write(self._write_end, b"\0")

    def wait(self, timeout_s: float) -> bool:
        """Wait until the flag is set, at most `timeout_s`. Returns whether it is set."""
        if not self._set:
            select.select([self._read_end], [], [], timeout_s)
        return self._set

    def close(self) -> None:
        os.close(self._read_end)
        os.close(self._write_end)


@contextmanager
def until_signalled() -> Iterator[StopRequest]:
    """A request that the first SIGINT, SIGTERM or SIGHUP sets.

    The second signal raises `KeyboardInterrupt`.
    """
    stop = StopRequest()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {
        number: signal.signal(number, on_signal)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.close()
