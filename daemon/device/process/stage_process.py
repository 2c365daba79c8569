"""Holds one process of a stage: its shared vectors, and the answer to its last command."""

from __future__ import annotations

import logging

import numpy as np
import trio

from daemon.children import memory
from daemon.children.messages import ChildMessage, frame
from daemon.children.process import STDERR_GRACE_S, ChildProcess
from daemon.device.settings import WorkerSettings, choose_threads
from daemon.device.stages.messages import (
    StageReady,
    StageReport,
    StageUnable,
    decode_report,
    vector_sizes,
)
from protocol.errors import UserError
from protocol.ports.stage import Activations

log = logging.getLogger("hypergpu.stage")


class StageProcess:
    """One process of a stage, from its start to its end."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Spawn the process. Raises `OSError`."""
        threads = str(choose_threads(settings.threads))
        self.child: ChildProcess[StageReport] = ChildProcess(
            "daemon.device.stages.main",
            decode_report,
            logging.getLogger("hypergpu.stage.output"),
            environment={"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        )
        self.ready: StageReady | None = None
        self.unable: UserError | None = None
        self.answer: StageReport | None = None
        # Set with the answer to the last command, and without one at the end of the process.
        self.answered = trio.Event()
        self.answered.set()
        # Set once the first report has come, or the process has ended.
        self.started = trio.Event()
        self._given: Activations | None = None
        self._result: Activations | None = None

    def share(self, width: int, vocabulary: int) -> None:
        """Map the vectors, once the process has given them their size. Raises `ValueError`."""
        self._given, self._result = memory.map_vectors(
            self.child.memory_fd, vector_sizes(width, vocabulary)
        )

    def put(self, rows: Activations) -> None:
        """Write hidden states for the next command. shape (rows, width)"""
        assert self._given is not None
        self._given[: rows.size] = rows.reshape(-1)

    def taken(self, rows: int, columns: int) -> Activations:
        """Return a copy of the last result. shape (rows, columns)"""
        assert self._result is not None
        return np.array(self._result[: rows * columns]).reshape(rows, columns)

    async def send(self, command: ChildMessage) -> None:
        """Send a command. `answered` is set at the end of a process that is gone already."""
        self.answer, self.answered = None, trio.Event()
        with trio.CancelScope(shield=True):
            try:
                await self.child.send(frame(command))
            except trio.BrokenResourceError:
                self.answered.set()

    async def run(self, begin: ChildMessage, limit_s: float) -> None:
        """Send the first command, and receive reports until the process has ended and is reaped.

        Kills a process that has not started after `limit_s`.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.child.listen_to_errors)
                nursery.start_soon(self.child.hang_up_when_gone)
                nursery.start_soon(self._watch_start, limit_s)
                await self.send(begin)
                async for report in self.child.reports():
                    self._receive(report)
                with trio.CancelScope(shield=True):
                    await self.child.ended()
                self.started.set()
                nursery.cancel_scope.deadline = trio.current_time() + STDERR_GRACE_S
        finally:
            with trio.CancelScope(shield=True):
                if not self.child.reaped:
                    self.child.kill("the node is stopping")
                    await self.child.ended()
                await self.child.close_errors()
            self.started.set()
            self.answered.set()

    def why(self) -> str:
        """Return why it ended, after `run`."""
        return self.unable.what.rstrip(".") if self.unable else self.child.why()

    def _receive(self, report: StageReport) -> None:
        match report:
            case StageReady():
                self.ready = report
            case StageUnable(code=code, what=what, why=why, fix=fix, exit_code=exit_code):
                self.unable = UserError(code, what, why=why, fix=fix, exit_code=exit_code)
            case _:
                self.answer = report
        self.started.set()
        self.answered.set()

    async def _watch_start(self, limit_s: float) -> None:
        with trio.move_on_after(limit_s):
            await self.started.wait()
            return
        self.child.kill(f"it had not loaded the model after {limit_s:g} s")
