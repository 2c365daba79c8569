"""Decides when and why a process ends: signals, the death of its starter, a command, an error.

All of them set one `Shutdown`, which holds one event and one sentence.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import trio

from daemon.system.service_manager import STOPPING, notify
from daemon.system.trio_types import TaskStatus
from protocol.errors import UserError

REASONS = {signal.SIGINT: "interrupted", signal.SIGTERM: "asked to end by SIGTERM"}
# The exit code after a second signal, as a shell reports it.
INTERRUPTED = 130
# The time for everything that can be cancelled to end. A busy or swapping machine takes seconds.
FORCED_EXIT_S = 5.0
# The time for a service to end in order: the current training step and a checkpoint. A second
# signal ends the node at once.
SHUTDOWN_S = 20.0


class Shutdown:
    """The request to end this process.

    `reason` is one sentence. `forced` says that a second signal did not wait for the orderly end.
    `failure` is the error that ends the process, where nobody asked it to end.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.forced = False
        self.failure: UserError | None = None
        self._requested = trio.Event()

    def request(self, reason: str) -> None:
        """Ask for an orderly end. The first reason counts."""
        if not self._requested.is_set():
            self.reason = reason
            self._requested.set()

    @property
    def requested(self) -> bool:
        return self._requested.is_set()

    def force(self) -> None:
        """Note that the process must end at once."""
        self.forced = True

    def fail(self, error: UserError) -> None:
        """Note the error that ends the process. The first error counts."""
        self.failure = self.failure or error

    @property
    def exit_code(self) -> int:
        if self.forced:
            return INTERRUPTED
        return self.failure.exit_code if self.failure else 0

    async def wait(self) -> None:
        """Wait for a request."""
        await self._requested.wait()


class ForcedExit:
    """Cancels everything when called, and ends the process if that takes `FORCED_EXIT_S`.

    A thread in a call that never returns, for example to a dead file server, cannot be cancelled.
    A forced exit loses no more than a crash: files on disk are whole at every moment, and child
    processes notice that their parent is gone.

    Use it as `with` around everything that must end. On exit from the block the timer stops, so
    that it cannot end what this process does next.
    """

    def __init__(self, shutdown: Shutdown, cancel: Callable[[], None]) -> None:
        self._shutdown, self._cancel = shutdown, cancel
        self._timer = threading.Timer(FORCED_EXIT_S, self._end)
        self._timer.daemon = True

    def __call__(self) -> None:
        if not self._timer.is_alive() and not self._timer.finished.is_set():
            self._timer.start()
        self._cancel()

    def __enter__(self) -> ForcedExit:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        with suppress(OSError):
            failure = self._shutdown.failure
            why = (
                f"hypergpud: {failure}"
                if failure
                else f"Stopped: {self._shutdown.reason or 'left at once'}."
            )
            print(f"{why} A call did not return and was abandoned.", file=sys.stderr, flush=True)
        os._exit(self._shutdown.exit_code)


async def watch_signals(
    shutdown: Shutdown,
    leave_now: Callable[[], None],
    *,
    task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Request an orderly end on the first signal, and call `leave_now` on the second.

    The signals are SIGINT, SIGTERM and SIGHUP. SIGHUP stays ignored under `nohup`.
    """
    closing = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
    with trio.open_signal_receiver(*REASONS, *closing) as signals:
        task_status.started()
        async for number in signals:
            if shutdown.requested:
                shutdown.force()
                leave_now()
                return
            shutdown.request(REASONS.get(signal.Signals(number), "its terminal was closed"))


async def watch_lifeline(shutdown: Shutdown, handle: int, leave_now: Callable[[], None]) -> None:
    """Leave when the process that started this one is gone.

    The starter holds the other end of the pipe `handle`. The kernel closes it at the starter's
    death, whatever the cause.
    """
    os.set_blocking(handle, False)
    async with trio.lowlevel.FdStream(handle) as pipe:
        while await pipe.receive_some(64):
            pass
    shutdown.request("the process that started this node has ended")
    leave_now()


async def leave_when_late(
    shutdown: Shutdown, begun: trio.Event, leave_now: Callable[[], None]
) -> None:
    """Cancel the node when its services take longer than `SHUTDOWN_S` to end.

    Before a service has begun, there is nothing to write down, and the node is cancelled at once.
    """
    await shutdown.wait()
    notify(STOPPING)
    if begun.is_set():
        await trio.sleep(SHUTDOWN_S)
    leave_now()
