"""Why a process ends: signals, the lifeline of whoever started it, a command.

One place turns them all into one event and one sentence.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import trio

from protocol.errors import UserError

REASONS = {signal.SIGINT: "interrupted", signal.SIGTERM: "asked to end by SIGTERM"}
# The exit code of who was ordered to leave at once, as a shell reports it.
INTERRUPTED = 130
# From the order to leave to the end of everything that can be cancelled: seconds on a machine that
# is busy or swaps.
FORCED_EXIT_S = 5.0
# From the wish to end to the end: a step's border and a checkpoint; whoever asks twice waits no
# longer.
SHUTDOWN_S = 20.0


class Shutdown:
    """Set once; `reason` is one sentence.

    `ordered` says that a second signal did not wait for the end in order.

    `failure` is why the node ends although nobody asked it to, where that is so.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.ordered = False
        self.failure: UserError | None = None
        self._wished = trio.Event()

    def wish(self, reason: str) -> None:
        """End, please. The first reason stays."""
        if not self._wished.is_set():
            self.reason = reason
            self._wished.set()

    @property
    def wished(self) -> bool:
        return self._wished.is_set()

    def order(self) -> None:
        """End now, whatever is left undone."""
        self.ordered = True

    def fail(self, error: UserError) -> None:
        """The node ends because of `error`."""
        self.failure = self.failure or error

    @property
    def exit_code(self) -> int:
        if self.ordered:
            return INTERRUPTED
        return self.failure.exit_code if self.failure else 0

    async def wait(self) -> None:
        await self._wished.wait()


class ForcedExit:
    """Calls `leave`, and ends the process where that does not end everything within `FORCED_EXIT_S`: a
    thread in a call that nothing ends, as to a dead file server.

    Nothing is lost that a crash would not lose: what is on disk is whole at every moment, and
    children see their parent end.

    Used as `with`, around all that must end: a timer that ran on would end whatever this process
    does next.
    """

    def __init__(self, ending: Shutdown, leave: Callable[[], None]) -> None:
        self._ending, self._leave = ending, leave
        self._timer = threading.Timer(FORCED_EXIT_S, self._end)
        self._timer.daemon = True

    def __call__(self) -> None:
        if not self._timer.is_alive() and not self._timer.finished.is_set():
            self._timer.start()
        self._leave()

    def __enter__(self) -> ForcedExit:
        return self

    def __exit__(self, *_: object) -> None:
        """Everything has ended."""
        self._timer.cancel()

    def _end(self) -> None:
        with suppress(OSError):
            failure = self._ending.failure
            why = (
                f"hypergpud: {failure}"
                if failure
                else f"Stopped: {self._ending.reason or 'left at once'}."
            )
            print(
                f"{why} Something was still busy, and is left behind.", file=sys.stderr, flush=True
            )
        os._exit(self._ending.exit_code)


async def watch_signals(
    ending: Shutdown,
    leave_now: Callable[[], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """SIGINT, SIGTERM and a terminal that is closed once: end in order.

    Twice: leave now. Under `nohup` a closed terminal says nothing.
    """
    closing = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
    with trio.open_signal_receiver(*REASONS, *closing) as signals:
        task_status.started()
        async for number in signals:
            if ending.wished:
                ending.order()
                leave_now()
                return
            ending.wish(REASONS.get(signal.Signals(number), "its terminal was closed"))


async def watch_lifeline(ending: Shutdown, handle: int, leave_now: Callable[[], None]) -> None:
    """Whoever started us holds the other end of this pipe; when it closes, they are gone, however
    they went.
    """
    os.set_blocking(handle, False)
    async with trio.lowlevel.FdStream(handle) as pipe:
        while await pipe.receive_some(64):
            pass
    ending.wish("whoever started this process is gone")
    leave_now()
