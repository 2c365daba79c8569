"""Implements the port `Trainer` with one worker process at a time, which `supervisor.py` restarts.

A call waits while the first worker starts. After a worker has ended, every call but `describe`
raises `TrainerLost` until the next worker is ready. `resume` and `collect` raise it until the next
worker has an anchor, because the work of the last one is lost. After the node has given up on the
task, `describe` waits until the end, and every other call raises `TrainerLost`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import trio

from daemon.device.messages import (
    CollectWork,
    ContinueTraining,
    EvaluationUnable,
    ExportModel,
    GroupsMeasured,
    HandOverWork,
    LoadInnerState,
    ModelEvaluated,
    ModelExported,
    ModelSampled,
    ResultUnable,
    SampleModel,
    SaveInnerState,
    ShiftAnchor,
    TrainFromAnchor,
    WorkCollected,
    WorkerCommand,
    WorkerReport,
)
from daemon.device.process.command_channel import CommandChannel
from daemon.device.process.restart_policy import COMPILED_FIRST_STEP_S, WorkerTimeouts
from daemon.device.process.supervisor import WorkerSupervisor
from daemon.device.process.worker_process import WorkerProcess
from daemon.device.settings import WorkerSettings, job_of
from daemon.device.tasks.catalog import locate
from daemon.home.batch_parts import BatchPartFile
from protocol.averaging.vector_layout import Vector
from protocol.errors import OurFault, UserError
from protocol.generation.sampler import SamplingRules
from protocol.identity import PeerId
from protocol.journal import JournalEvent
from protocol.ports.trainer import (
    Evaluation,
    EvaluationFailed,
    GroupLosses,
    HeldOutShare,
    Lane,
    Positions,
    Progress,
    TaskInfo,
    TrainerLost,
    Work,
)
from protocol.run.manifest import Manifest
from protocol.run.task_digest import TaskDigest

__all__ = ["WorkerTimeouts", "WorkerTrainer"]


def timeouts_of(settings: WorkerSettings) -> WorkerTimeouts:
    """Return the timeouts of a worker with these settings."""
    if settings.compile:
        return WorkerTimeouts(first_step_s=COMPILED_FIRST_STEP_S)
    return WorkerTimeouts()


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
        parts: BatchPartFile | None = None,
    ) -> None:
        """`previous_task` is the task of the model that this home holds, or None.

        `parts` keeps the number of samples that the device computes at once.
        """
        self._job = job_of(manifest, peer, batch_part=parts.load() if parts is not None else 0)
        self._settings = settings
        # The worker that handed work over last.
        self._last: WorkerProcess | None = None
        self._timeouts = timeouts or timeouts_of(settings)
        self._supervisor = WorkerSupervisor(
            self._job,
            settings,
            on_event,
            self._timeouts,
            previous_task,
            parts.save if parts is not None else None,
        )
        self._commands = CommandChannel(self._supervisor, self._timeouts)

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

    async def given_parameters(self) -> Vector:
        await self.describe()
        worker = self._supervisor.current
        if worker is None or worker.buffers is None:
            raise TrainerLost(self._supervisor.lost)
        return await trio.to_thread.run_sync(worker.buffers.anchor.copy)

    async def train(
        self, anchor: Vector, lane: Lane, *, position: int = 0, max_steps: int | None = None
    ) -> None:
        def begin(worker: WorkerProcess, number: int) -> WorkerCommand:
            worker.anchored, worker.received, worker.stretch = True, False, number
            return TrainFromAnchor(id=number, lane=lane, position=position, max_steps=max_steps)

        await self._commands.ask(begin, put=(lambda buffers: buffers.anchor, anchor))

    async def resume(
        self, lane: Lane, *, position: int | None = None, max_steps: int | None = None
    ) -> None:
        def go_on(worker: WorkerProcess, number: int) -> WorkerCommand:
            received, worker.received, worker.stretch = worker.received, False, number
            return ContinueTraining(
                id=number, lane=lane, position=position, max_steps=max_steps, received=received
            )

        await self._commands.ask(go_on, after_anchor=True)

    async def collect(self) -> Work:
        def stop(worker: WorkerProcess, number: int) -> WorkerCommand:
            received, worker.received = worker.received, False
            return CollectWork(id=number, received=received)

        return await self._work_of(stop)

    async def hand_over(self, lane: Lane, *, position: int | None = None) -> Work:
        def hand_over(worker: WorkerProcess, number: int) -> WorkerCommand:
            received, worker.received = worker.received, False
            return HandOverWork(id=number, lane=lane, position=position, received=received)

        return await self._work_of(hand_over)

    async def _work_of(self, command: Callable[[WorkerProcess, int], WorkerCommand]) -> Work:
        worker, answer = await self._commands.ask(command, after_anchor=True)
        if not isinstance(answer, WorkCollected) or worker.buffers is None:
            raise OurFault(f"the worker answered a hand-over with {answer}")
        worker.received = True
        self._last = worker
        self._commands.check_step(worker, answer.step_s)
        return Work(
            delta=worker.buffers.delta,
            samples=answer.samples,
            steps=answer.steps,
            loss=answer.loss,
            seconds=answer.seconds,
            drawn=answer.drawn,
        )

    async def release_work(self) -> None:
        if self._last is not None and self._last is self._supervisor.current:
            await self._commands.release(self._last, lambda buffers: buffers.delta)

    async def shift(
        self, local: Vector, lane: Lane, *, position: int = 0, max_steps: int | None = None
    ) -> None:
        def shift(worker: WorkerProcess, number: int) -> WorkerCommand:
            received, worker.received, worker.stretch = worker.received, False, number
            return ShiftAnchor(
                id=number, lane=lane, position=position, max_steps=max_steps, received=received
            )

        await self._commands.ask(
            shift, put=(lambda buffers: buffers.anchor, local), after_anchor=True
        )

    async def evaluate(self, parameters: Vector, share: HeldOutShare) -> Evaluation:
        report = await self._commands.evaluate(parameters, share)
        if isinstance(report, ModelEvaluated):
            return report.evaluation
        if isinstance(report, EvaluationUnable):
            raise EvaluationFailed(report.what)
        raise OurFault(f"the worker answered an evaluation with {report}")

    async def sample(
        self, parameters: Vector, *, prompt: str, count: int, tokens: int, rules: SamplingRules
    ) -> tuple[str, ...]:
        """Return texts of at most `tokens` that continue the prompt, or predictions.

        `parameters` has shape (parameters,). Raises `UserError("SAMPLE")` where the task cannot.
        """

        def begin(_: WorkerProcess, number: int) -> WorkerCommand:
            return SampleModel(id=number, prompt=prompt, count=count, tokens=tokens, rules=rules)

        _, report = await self._commands.ask(
            begin, put=(lambda buffers: buffers.scored, parameters)
        )
        if isinstance(report, ModelSampled):
            return report.texts
        raise _unable("SAMPLE", report)

    async def export(
        self, parameters: Vector, folder: Path, *, form: Literal["torch", "hf"], adapter: bool
    ) -> tuple[str, ...]:
        """Write the model into an empty folder. Returns the names of the files.

        `parameters` has shape (parameters,). Raises `UserError("EXPORT")` where the task cannot.
        """

        def begin(_: WorkerProcess, number: int) -> WorkerCommand:
            return ExportModel(id=number, folder=str(folder), form=form, adapter=adapter)

        _, report = await self._commands.ask(
            begin, put=(lambda buffers: buffers.scored, parameters)
        )
        if isinstance(report, ModelExported):
            return report.files
        raise _unable("EXPORT", report)

    async def group_losses(self, parameters: Vector, positions: Positions) -> GroupLosses:
        groups = [tuple(group) for group in positions.tolist()]
        losses: tuple[float, ...] = ()
        seconds = 0.0
        for report in await self._commands.measure(parameters, groups):
            if isinstance(report, EvaluationUnable):
                raise EvaluationFailed(report.what)
            if not isinstance(report, GroupsMeasured):
                raise OurFault(f"the worker answered a measurement with {report}")
            losses, seconds = (*losses, *report.losses.losses), seconds + report.losses.seconds
        return GroupLosses(losses=losses, seconds=seconds)

    async def inner_state(self) -> Vector:
        worker, _ = await self._commands.ask(lambda _, number: SaveInnerState(id=number))
        buffers = worker.buffers
        if buffers is None:
            raise OurFault("the worker answered before it was up")
        state = await trio.to_thread.run_sync(buffers.inner.copy)
        await self._commands.release(worker, lambda buffers: buffers.inner)
        return state

    async def restore_inner_state(self, state: Vector) -> None:
        await self._commands.ask(
            lambda _, number: LoadInnerState(id=number), put=(lambda buffers: buffers.inner, state)
        )

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


def _unable(code: str, report: WorkerReport) -> UserError | OurFault:
    """Return the error for a request that the worker could not fulfil."""
    if isinstance(report, ResultUnable):
        return UserError(code, f"{report.what.rstrip('.')}.", why=report.trace, fix=report.fix)
    return OurFault(f"the worker answered a request for a result with {report}")
