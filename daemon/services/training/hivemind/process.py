"""Supervises the hivemind process on the node's side: starts, asks and restarts it.

This module does not import hivemind.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from daemon.children import memory
from daemon.children.messages import frame
from daemon.children.process import STDERR_GRACE_S, ChildProcess
from daemon.services.training.hivemind.messages import (
    CommandFailed,
    HivemindCommand,
    HivemindReport,
    PeerReady,
    StartPeer,
    decode_report,
)
from daemon.services.training.hivemind.settings import AveragerSettings, PeerSettings
from protocol.averaging.vector_layout import Vector
from protocol.errors import OurFault

log = logging.getLogger("hypergpu.hivemind")

# Importing torch and hivemind from a cold disk takes half a minute.
START_S = 120.0
# The pause before a restart doubles from the first value up to the second.
FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 60.0
# torch only adds vectors in this process. The worker needs the processors.
THREADS = "1"
MODULE = "daemon.services.training.hivemind.main"


class HivemindLost(Exception):
    """The process is not running, or ended before it answered. The message is one sentence."""


class _RunningPeer:
    """One process, with the last command that it got."""

    def __init__(self, module: str) -> None:
        # A Unix socket's path has at most 107 characters, so the name is short.
        self.sockets = tempfile.mkdtemp(prefix="hypergpu-")
        self.process: ChildProcess[HivemindReport] = ChildProcess(
            module,
            decode_report,
            logging.getLogger("hypergpu.hivemind.output"),
            environment={
                "OMP_NUM_THREADS": THREADS,
                "MKL_NUM_THREADS": THREADS,
                "HIVEMIND_LOGLEVEL": "ERROR",
            },
            arguments=(self.sockets,),
        )
        self.answer: HivemindReport | None = None
        self.answered = trio.Event()
        self.asked = 0


class HivemindProcess:
    """Keeps one hivemind process running inside `running()`.

    The shared vectors exist once `up` has returned. Each restart replaces them.
    """

    def __init__(
        self,
        peer: PeerSettings,
        averager: AveragerSettings,
        elements: int,
        on_lost: Callable[[str], None],
        *,
        module: str = MODULE,
    ) -> None:
        """`on_lost` is called with one sentence each time the process ends."""
        self._peer = peer
        self._averager = averager
        self._elements = elements
        self._on_lost = on_lost
        self._module = module
        # The process that is ready, if there is one.
        self._current: _RunningPeer | None = None
        self._why = "it is starting"
        self._asking = trio.Lock()
        self._numbers = 0
        # How many processes have become ready so far.
        self.starts = 0
        self._changed = trio.Event()
        self.id = ""
        self.maddrs: tuple[str, ...] = ()
        self.vector: Vector
        self.anchor: Vector
        self.momentum: Vector

    @property
    def pid(self) -> int | None:
        """The id of the process and of its group."""
        return self._current.process.pid if self._current else None

    @property
    def folder(self) -> str:
        """The folder of its Unix sockets, removed with the process; "" while it is not ready."""
        return self._current.sockets if self._current else ""

    @property
    def is_up(self) -> bool:
        """Whether the process is ready."""
        return self._current is not None

    async def up(self) -> None:
        """Wait until the process is ready."""
        while self._current is None:
            await self._changed.wait()

    async def ask(self, make: Callable[[int], HivemindCommand]) -> HivemindReport:
        """Send the command that `make` returns for an id, and wait for the answer.

        Raises `HivemindLost`.
        """
        async with self._asking:
            running = self._current
            if running is None:
                raise HivemindLost(self._why)
            return await self._ask(running, make)

    async def _ask(
        self, running: _RunningPeer, make: Callable[[int], HivemindCommand]
    ) -> HivemindReport:
        self._numbers += 1
        running.asked, running.answer, running.answered = self._numbers, None, trio.Event()
        # Half a frame would break the connection. A command fits into the socket's buffer.
        with trio.CancelScope(shield=True):
            try:
                await running.process.send(frame(make(self._numbers)))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise HivemindLost("it has ended") from None
        await running.answered.wait()
        if running.answer is None:
            raise HivemindLost(self._why)
        return running.answer

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start the process, restart it whenever it ends, and end it on exit."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._supervise)
            yield
            nursery.cancel_scope.cancel()

    async def _supervise(self) -> None:
        wait_s = FIRST_PAUSE_S
        while True:
            running = _RunningPeer(self._module)
            try:
                await self._serve(running)
            finally:
                shutil.rmtree(running.sockets, ignore_errors=True)
            self._on_lost(f"{self._why}; trying again in {wait_s:.0f} s")
            await trio.sleep(wait_s)
            wait_s = min(2 * wait_s, MAX_PAUSE_S)

    async def _serve(self, running: _RunningPeer) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(running.process.listen_to_errors)
                nursery.start_soon(self._start_peer, running)
                async for report in running.process.reports():
                    if report.id == running.asked:
                        running.answer = report
                        running.answered.set()
                self._current, self._why = None, "it has ended"
                with trio.CancelScope(shield=True):
                    await running.process.ended()
                nursery.cancel_scope.deadline = trio.current_time() + STDERR_GRACE_S
        finally:
            with trio.CancelScope(shield=True):
                if not running.process.reaped:
                    running.process.kill("the node is stopping")
                    await running.process.ended()
                await running.process.close_errors()
            self._why, self._current = running.process.why(), None
            running.answered.set()
            self._wake_waiters()

    async def _start_peer(self, running: _RunningPeer) -> None:
        with trio.move_on_after(START_S) as start_timeout:
            try:
                up = await self._ask(
                    running,
                    lambda number: StartPeer(
                        id=number, peer=self._peer, averager=self._averager, elements=self._elements
                    ),
                )
            except HivemindLost:
                # `_serve` reports why the process ended.
                return
            if not isinstance(up, PeerReady):
                raise OurFault(f"the hivemind process answered StartPeer with {up}")
            try:
                self.vector, self.anchor, self.momentum = memory.map_vectors(
                    running.process.memory_fd, (self._elements,) * 3
                )
            except (ValueError, OSError) as error:
                running.process.kill(f"its memory cannot be shared: {error}")
                return
            self.id, self.maddrs, self._current = up.peer, up.maddrs, running
            self.starts += 1
            self._wake_waiters()
        if start_timeout.cancelled_caught:
            running.process.kill(f"it was not up after {START_S:.0f} s")

    def _wake_waiters(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def failure_reason(report: HivemindReport) -> str:
    """Return why a command failed, from a report that is not its result."""
    return (
        report.why
        if isinstance(report, CommandFailed)
        else f"the hivemind process answered {type(report).__name__}"
    )
