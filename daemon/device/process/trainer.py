"""The real Trainer: one worker process at a time, started again when it dies alone (`lives.py`).

A call made while the worker is starting for the first time waits. After a death every call but
`describe` raises `TrainerLost`: until it is up again, and `resume` and `collect` until it was given
an anchor again, because what it had learned is gone. After it was given up, `describe` waits until
the end, and every other call raises `TrainerLost`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import numpy as np
import trio

from daemon.children.messages import frame
from daemon.device.messages import (
    CollectWork,
    CommandRefused,
    LoadInnerState,
    ResumeTraining,
    SaveInnerState,
    TrainFromAnchor,
    WorkCollected,
    WorkerCommand,
    WorkerReport,
)
from daemon.device.process.restart_policy import WorkerTimeouts
from daemon.device.process.supervisor import NO_PROGRESS, WorkerSupervisor
from daemon.device.process.worker_process import WorkerProcess
from daemon.device.settings import WorkerSettings, job_of
from daemon.device.shared_memory import SharedMemory
from daemon.device.tasks.catalog import locate
from protocol.averaging.vector_layout import Vector
from protocol.errors import OurFault
from protocol.identity import PeerId
from protocol.journal import JournalEvent
from protocol.ports.trainer import Lane, Progress, TaskInfo, TrainerLost, Work
from protocol.run.manifest import Manifest
from protocol.run.task_digest import TaskDigest

__all__ = ["WorkerTimeouts", "WorkerTrainer"]


# A node that was itself stopped past the limit finds the answer in its socket, but sees the clock
# first.
RECHECK_S = 2.0
SEND_LIMIT_S = (
    # A command has a few hundred bytes and the socket's buffer 200 KB: only a worker that reads
    # nothing for long refuses it.
    10.0
)


class WorkerTrainer:
    """`protocol.ports.trainer.Trainer` over a worker process.

    `running()` starts and stops it; calls are made inside that block.

    A call that is cancelled leaves nothing half done: the work of a cancelled `collect` is part of
    the next one.
    """

    def __init__(
        self,
        manifest: Manifest,
        peer: PeerId,
        settings: WorkerSettings,
        on_event: Callable[[JournalEvent], None],
        *,
        patience: WorkerTimeouts | None = None,
        before: TaskDigest | None = None,
    ) -> None:
        """`before` is the task of the model that this home holds, where it holds one."""
        self._job = job_of(manifest, peer)
        self._settings = settings
        self._patience = patience or WorkerTimeouts()
        self._lives = WorkerSupervisor(self._job, settings, on_event, self._patience, before)
        self._asking = trio.Lock()
        self._numbers = 0

    # ---------------------------------------------------------------------------------------- the port

    @property
    def restarts(self) -> int:
        return self._lives.restarts.count

    @property
    def gave_up(self) -> bool:
        """Whether the task failed so often by itself that it is not tried any more."""
        return self._lives.gave_up is not None

    @property
    def trained(self) -> bool:
        """Whether any sample was trained since the node started."""
        return self._lives.trained

    def progress(self) -> Progress:
        return self._lives.progress

    async def describe(self) -> TaskInfo:
        """Raises `UserError` when the task cannot be loaded on this machine, `TrainerLost` after
        the end of `running`.

        Waits on for a task that was up once and was given up.
        """
        while self._lives.up is None or self._lives.info is None:
            if self._lives.unable is not None:
                raise self._lives.unable
            await self._lives.turn.wait()
        return self._lives.info

    async def train(self, anchor: Vector, lane: Lane, *, max_steps: int | None = None) -> None:
        def begin(life: WorkerProcess, number: int) -> WorkerCommand:
            life.anchored, life.taken, life.stretch = True, False, number
            return TrainFromAnchor(id=number, lane=lane, max_steps=max_steps)

        await self._ask(begin, put=(lambda buffers: buffers.anchor, anchor))

    async def resume(self, lane: Lane, *, max_steps: int | None = None) -> None:
        def go_on(life: WorkerProcess, number: int) -> WorkerCommand:
            taken, life.taken, life.stretch = life.taken, False, number
            return ResumeTraining(id=number, lane=lane, max_steps=max_steps, taken=taken)

        await self._ask(go_on, after_anchor=True)

    async def collect(self) -> Work:
        def stop(life: WorkerProcess, number: int) -> WorkerCommand:
            taken, life.taken = life.taken, False
            return CollectWork(id=number, taken=taken)

        life, answer = await self._ask(stop, after_anchor=True)
        if not isinstance(answer, WorkCollected) or life.buffers is None:
            raise OurFault(f"the worker answered collect with {answer}")
        life.taken = True
        return Work(
            delta=life.buffers.delta,
            samples=answer.samples,
            steps=answer.steps,
            loss=answer.loss,
            seconds=answer.seconds,
        )

    async def inner_state(self) -> Vector:
        life, _ = await self._ask(lambda _, number: SaveInnerState(id=number))
        buffers = life.buffers
        if buffers is None:
            raise OurFault("the worker answered before it was up")
        return await trio.to_thread.run_sync(buffers.inner.copy)

    async def restore_inner_state(self, state: Vector) -> None:
        await self._ask(
            lambda _, number: LoadInnerState(id=number), put=(lambda buffers: buffers.inner, state)
        )

    # ---------------------------------------------------------------------------------------- one question at a time

    async def _ask(
        self,
        command: Callable[[WorkerProcess, int], WorkerCommand],
        *,
        put: tuple[Callable[[SharedMemory], Vector], Vector] | None = None,
        after_anchor: bool = False,
    ) -> tuple[WorkerProcess, WorkerReport]:
        """Ask the worker that is up, writing a vector into the shared memory first where `put` says
        so.
        """
        async with self._asking:
            life = await self._up()
            if after_anchor and self._lives.lost and not life.anchored:
                raise TrainerLost(self._lives.lost)
            # Of a call that was cancelled: the worker may still be using the shared memory.
            await self._answer(life)
            if put is not None and life.buffers is not None:
                target, value = put[0](life.buffers), put[1]
                if value.shape != target.shape:
                    raise ValueError(
                        f"the worker takes a vector of shape {target.shape}, not {value.shape}"
                    )
                # Hundreds of MB for a large model.
                await trio.to_thread.run_sync(partial(np.copyto, target, value))
            if self._lives.up is not life:
                raise TrainerLost(self._lives.lost)
            self._numbers += 1
            life.asked, life.answer, life.answered = self._numbers, None, trio.Event()
            message = command(life, self._numbers)
            self._lives.progress = (
                NO_PROGRESS
                if isinstance(message, TrainFromAnchor | ResumeTraining)
                else self._lives.progress
            )
            # Shielded: half a frame would end the conversation. A worker that is dying is not an
            # error here; its end sets `answered`.
            dying = suppress(trio.BrokenResourceError, trio.ClosedResourceError)
            with (
                trio.CancelScope(
                    shield=True, deadline=trio.current_time() + SEND_LIMIT_S
                ) as sending,
                dying,
            ):
                await life.process.send(frame(message))
            if sending.cancelled_caught:
                life.process.kill(f"it read nothing for {SEND_LIMIT_S:.0f} s")
            await self._answer(life)
            answer = life.answer
            if answer is None:
                raise TrainerLost(self._lives.lost)
            if isinstance(answer, CommandRefused):
                if answer.unfit:
                    raise ValueError(answer.why)
                # It lives, in another state than its caller takes it to be in. `train` brings it
                # from any state to a known one.
                raise TrainerLost(f"the worker refused {type(message).__name__}: {answer.why}")
            return life, answer

    async def _up(self) -> WorkerProcess:
        while self._lives.up is None:
            if self._lives.unable is not None:
                raise self._lives.unable
            if self._lives.lost:
                raise TrainerLost(self._lives.lost)
            await self._lives.turn.wait()
        return self._lives.up

    async def _answer(self, life: WorkerProcess) -> None:
        """Wait until the last question was answered, or its worker died of not answering."""
        patience, longest = self._patience, life.longest_step_s
        limit_s = (
            patience.answer_s + patience.answer_steps * longest
            if longest
            else patience.first_step_s
        )
        for last_s in (limit_s, RECHECK_S):
            with trio.move_on_after(last_s):
                await life.answered.wait()
        if not life.answered.is_set():
            life.process.kill(
                f"it gave no answer for {limit_s:.0f} s (its longest step took {longest:.1f} s)"
            )
            await life.answered.wait()

    # ---------------------------------------------------------------------------------------- lives

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Spawns the worker and keeps one alive; on exit there is none.

        Raises `UserError` at once for a task that may not run here.
        """
        locate(self._job.task, self._settings)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._lives.supervise)
                try:
                    yield
                finally:
                    self._lives.end()
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # An exception of the block comes out as it was, not in a group of one.
            if len(group.exceptions) > 1:
                raise
            raise group.exceptions[0] from group.exceptions[0].__cause__
