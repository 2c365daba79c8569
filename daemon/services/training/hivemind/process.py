"""The hivemind process as the node sees it: started, asked, and started again when it dies alone.

Node side; imports no hivemind.
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

# Torch and hivemind from a cold disk take half a minute.
START_S = 120.0
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0  # between a death and the next start
# Of torch in there: it adds vectors, while the worker needs the processors.
THREADS = "1"
MODULE = "daemon.services.training.hivemind.main"


class HivemindLost(Exception):
    """The process is not there, or died while it was asked; the message says why, in one sentence."""


class _Life:
    """One process, with the question it was asked last."""

    def __init__(self, module: str) -> None:
        # short: a Unix socket's path has at most 107 characters.
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
    """`running()` starts and stops it; `ask` is called inside that block.

    The vectors are there once `up` was awaited, and anew after each death.
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
        """`on_lost` hears a sentence for each death."""
        self._peer = peer
        self._averager = averager
        self._elements = elements
        self._on_lost = on_lost
        self._module = module
        self._life: _Life | None = None  # the one that is up
        self._why = "it is starting"
        self._asking = trio.Lock()
        self._numbers = 0
        self.lives = 0  # how many were up so far
        self._turn = trio.Event()
        self.id = ""
        self.maddrs: tuple[str, ...] = ()
        self.vector: Vector
        self.anchor: Vector
        self.momentum: Vector

    @property
    def pid(self) -> int | None:
        """Of the process and of its group."""
        return self._life.process.pid if self._life else None

    @property
    def folder(self) -> str:
        """Of its Unix sockets; empty while it is not up. It goes with the process."""
        return self._life.sockets if self._life else ""

    @property
    def is_up(self) -> bool:
        return self._life is not None

    async def up(self) -> None:
        """Wait until it can be asked."""
        while self._life is None:
            await self._turn.wait()

    async def ask(self, make: Callable[[int], HivemindCommand]) -> HivemindReport:
        """Send the command that `make` makes of its id, and wait for the answer.

        Raises `HivemindLost`.
        """
        async with self._asking:
            life = self._life
            if life is None:
                raise HivemindLost(self._why)
            return await self._ask(life, make)

    async def _ask(self, life: _Life, make: Callable[[int], HivemindCommand]) -> HivemindReport:
        self._numbers += 1
        life.asked, life.answer, life.answered = self._numbers, None, trio.Event()
        # Half a command would be the end of the conversation; it fits the socket's buffer.
        with trio.CancelScope(shield=True):
            try:
                await life.process.send(frame(make(self._numbers)))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise HivemindLost("it is gone") from None
        await life.answered.wait()
        if life.answer is None:
            raise HivemindLost(self._why)
        return life.answer

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._supervise)
            yield
            nursery.cancel_scope.cancel()

    async def _supervise(self) -> None:
        wait_s = FIRST_WAIT_S
        while True:
            life = _Life(self._module)
            try:
                await self._live(life)
            finally:
                shutil.rmtree(life.sockets, ignore_errors=True)
            self._on_lost(f"{self._why}; trying again in {wait_s:.0f} s")
            await trio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    async def _live(self, life: _Life) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(life.process.listen_to_errors)
                nursery.start_soon(self._begin, life)
                async for report in life.process.reports():
                    if report.id == life.asked:
                        life.answer = report
                        life.answered.set()
                self._life, self._why = None, "it is gone"
                with trio.CancelScope(shield=True):
                    await life.process.ended()
                nursery.cancel_scope.deadline = trio.current_time() + STDERR_GRACE_S
        finally:
            with trio.CancelScope(shield=True):
                if not life.process.reaped:
                    life.process.kill("the node is stopping")
                    await life.process.ended()
                await life.process.close_errors()
            self._why, self._life = life.process.why(), None
            life.answered.set()
            self._next_turn()

    async def _begin(self, life: _Life) -> None:
        with trio.move_on_after(START_S) as patience:
            try:
                up = await self._ask(
                    life,
                    lambda number: StartPeer(
                        id=number, peer=self._peer, averager=self._averager, elements=self._elements
                    ),
                )
            except HivemindLost:
                return  # `_live` says why
            if not isinstance(up, PeerReady):
                raise OurFault(f"the hivemind process answered Begin with {up}")
            try:
                self.vector, self.anchor, self.momentum = memory.map_vectors(
                    life.process.memory_fd, (self._elements,) * 3
                )
            except (ValueError, OSError) as error:
                life.process.kill(f"its memory cannot be shared: {error}")
                return
            self.id, self.maddrs, self._life = up.peer, up.maddrs, life
            self.lives += 1
            self._next_turn()
        if patience.cancelled_caught:
            life.process.kill(f"it was not up after {START_S:.0f} s")

    def _next_turn(self) -> None:
        self._turn.set()
        self._turn = trio.Event()


def because(report: HivemindReport) -> str:
    """Why something did not work, of an answer that is not the one hoped for."""
    return (
        report.why
        if isinstance(report, CommandFailed)
        else f"the hivemind process answered {type(report).__name__}"
    )
