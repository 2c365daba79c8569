"""Implements the port `Trainer` with one worker process at a time, which `supervisor.py` restarts.

A call waits while the first worker starts. After a worker has ended, every call but `describe`
raises `TrainerLost` until the next worker is ready. `resume` and `collect` raise it until the next
worker has an anchor, because the work of the last one is lost. After the node has given up on the
task, `describe` waits until the end, and every other call raises `TrainerLost`.
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
    ContinueTraining,
    LoadInnerState,
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
from protocol.ports.trainer import (
    Evaluation,
    EvaluationFailed,
    HeldOutShare,
    Lane,
    Progress,
    TaskInfo,
    TrainerLost,
    Work,
)
from protocol.run.manifest import Manifest
from protocol.run.task_digest import TaskDigest

__all__ = ["WorkerTimeouts", "WorkerTrainer"]


# A node that was stopped for longer than the limit sees the clock before the answer in its socket.
RECHECK_S = 2.0
# A command has a few hundred bytes, and the socket's buffer 200 KB. Only a worker that reads
# nothing for long lets a send wait.
SEND_LIMIT_S = 10.0


class WorkerTrainer:
    """Satisfies `Trainer` with a worker process, inside the block of `running()`.

    A cancelled call leaves nothing half done: the work of a cancelled `collect` is part of the next
    one.
    """

    def __init__(
        self,
        manifest: Manifest,
        peer: PeerId,
        settings: WorkerSettings,
        on_event: Callable[[JournalEvent], None],
        *,
        timeouts: WorkerTimeouts | None = None,
        previous_task: TaskDigest | None = None,
    ) -> None:
        """`previous_task` is the task of the model that this home holds, or None."""
        self._job = job_of(manifest, peer)
        self._settings = settings
        self._timeouts = timeouts or WorkerTimeouts()
        self._supervisor = WorkerSupervisor(
            self._job, settings, on_event, self._timeouts, previous_task
        )
        self._asking = trio.Lock()
        self._numbers = 0

    @property
    def restarts(self) -> int:
        return self._supervisor.restarts.count

    @property
    def gave_up(self) -> bool:
        """Whether the task failed so often that it is not restarted any more."""
        return self._supervisor.gave_up is not None

    @property
    def trained(self) -> bool:
        """Whether any sample was trained since the node started."""
        return self._supervisor.trained

    def progress(self) -> Progress:
        return self._supervisor.progress

    async def describe(self) -> TaskInfo:
        """Return the task's description. Waits for a worker that is ready.

        Raises `UserError` where the task cannot be loaded on this machine, and `TrainerLost` after
        the end of `running`.
        """
        while self._supervisor.current is None or self._supervisor.info is None:
            if self._supervisor.unable is not None:
                raise self._supervisor.unable
            await self._supervisor.changed.wait()
        return self._supervisor.info

    async def train(
        self, anchor: Vector, lane: Lane, *, position: int = 0, max_steps: int | None = None
    ) -> None:
        def begin(worker: WorkerProcess, number: int) -> WorkerCommand:
            worker.anchored, worker.received, worker.stretch = True, False, number
            return TrainFromAnchor(id=number, lane=lane, max_steps=max_steps)

        await self._ask(begin, put=(lambda buffers: buffers.anchor, anchor))

    async def resume(
        self, lane: Lane, *, position: int | None = None, max_steps: int | None = None
    ) -> None:
        def go_on(worker: WorkerProcess, number: int) -> WorkerCommand:
            received, worker.received, worker.stretch = worker.received, False, number
            return ContinueTraining(id=number, lane=lane, max_steps=max_steps, received=received)

        await self._ask(go_on, after_anchor=True)

    async def collect(self) -> Work:
        def stop(worker: WorkerProcess, number: int) -> WorkerCommand:
            received, worker.received = worker.received, False
            return CollectWork(id=number, received=received)

        worker, answer = await self._ask(stop, after_anchor=True)
        if not isinstance(answer, WorkCollected) or worker.buffers is None:
            raise OurFault(f"the worker answered collect with {answer}")
        worker.received = True
        return Work(
            delta=worker.buffers.delta,
            samples=answer.samples,
            steps=answer.steps,
            loss=answer.loss,
            seconds=answer.seconds,
        )

    async def hand_over(self, lane: Lane, *, position: int | None = None) -> Work:
        raise TrainerLost("this worker cannot hand over while it trains")

    async def shift(
        self, local: Vector, lane: Lane, *, position: int = 0, max_steps: int | None = None
    ) -> None:
        raise TrainerLost("this worker cannot shift")

    async def evaluate(self, parameters: Vector, share: HeldOutShare) -> Evaluation:
        raise EvaluationFailed("this worker cannot score parameters")

    async def inner_state(self) -> Vector:
        worker, _ = await self._ask(lambda _, number: SaveInnerState(id=number))
        buffers = worker.buffers
        if buffers is None:
            raise OurFault("the worker answered before it was up")
        return await trio.to_thread.run_sync(buffers.inner.copy)

    async def restore_inner_state(self, state: Vector) -> None:
        await self._ask(
            lambda _, number: LoadInnerState(id=number), put=(lambda buffers: buffers.inner, state)
        )

    async def _ask(
        self,
        command: Callable[[WorkerProcess, int], WorkerCommand],
        *,
        put: tuple[Callable[[SharedMemory], Vector], Vector] | None = None,
        after_anchor: bool = False,
    ) -> tuple[WorkerProcess, WorkerReport]:
        """Send a command to the current worker, and wait for the answer.

        `put` names a vector of the shared memory, and the value to write there first.
        """
        async with self._asking:
            worker = await self._up()
            if after_anchor and self._supervisor.lost and not worker.anchored:
                raise TrainerLost(self._supervisor.lost)
            # The worker may still use the shared memory for the command of a cancelled call.
            await self._answer(worker)
            if put is not None and worker.buffers is not None:
                target, value = put[0](worker.buffers), put[1]
                if value.shape != target.shape:
                    raise ValueError(
                        f"the worker takes a vector of shape {target.shape}, not {value.shape}"
                    )
                # The vector of a large model has hundreds of MB.
                await trio.to_thread.run_sync(partial(np.copyto, target, value))
            if self._supervisor.current is not worker:
                raise TrainerLost(self._supervisor.lost)
            self._numbers += 1
            worker.asked, worker.answer, worker.answered = self._numbers, None, trio.Event()
            message = command(worker, self._numbers)
            self._supervisor.progress = (
                NO_PROGRESS
                if isinstance(message, TrainFromAnchor | ContinueTraining)
                else self._supervisor.progress
            )
            # Shielded, because half a frame would break the connection. A worker that ends now is
            # no error here: its end sets `answered`.
            dying = suppress(trio.BrokenResourceError, trio.ClosedResourceError)
            with (
                trio.CancelScope(
                    shield=True, deadline=trio.current_time() + SEND_LIMIT_S
                ) as sending,
                dying,
            ):
                await worker.process.send(frame(message))
            if sending.cancelled_caught:
                worker.process.kill(f"it read nothing for {SEND_LIMIT_S:.0f} s")
            await self._answer(worker)
            answer = worker.answer
            if answer is None:
                raise TrainerLost(self._supervisor.lost)
            if isinstance(answer, CommandRefused):
                if answer.unfit:
                    raise ValueError(answer.why)
                # The worker is in another state than the caller expects. `train` brings it from any
                # state to a known one.
                raise TrainerLost(f"the worker refused {type(message).__name__}: {answer.why}")
            return worker, answer

    async def _up(self) -> WorkerProcess:
        while self._supervisor.current is None:
            if self._supervisor.unable is not None:
                raise self._supervisor.unable
            if self._supervisor.lost:
                raise TrainerLost(self._supervisor.lost)
            await self._supervisor.changed.wait()
        return self._supervisor.current

    async def _answer(self, worker: WorkerProcess) -> None:
        """Wait until the worker has answered its last command. Kill a worker that is too slow."""
        timeouts, longest = self._timeouts, worker.longest_step_s
        limit_s = (
            timeouts.answer_s + timeouts.answer_steps * longest
            if longest
            else timeouts.first_step_s
        )
        for last_s in (limit_s, RECHECK_S):
            with trio.move_on_after(last_s):
                await worker.answered.wait()
        if not worker.answered.is_set():
            worker.process.kill(
                f"it gave no answer for {limit_s:.0f} s (its longest step took {longest:.1f} s)"
            )
            await worker.answered.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep a worker running inside the block. On exit, no worker is left.

        Raises `UserError` at once for a task that may not run on this machine.
        """
        locate(self._job.task, self._settings)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._supervisor.supervise)
                try:
                    yield
                finally:
                    self._supervisor.end()
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # Raise a single exception of the block without its group.

            if len(group.exceptions) > 1:
                raise
            raise group.exceptions[0] from group.exceptions[0].__cause__
