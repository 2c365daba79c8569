"""Supervises a node's worker: starts it, restarts it, and gives up when its task keeps failing.

down ──spawn──▶ starting ──WorkerReady──▶ up ──exit, hang──▶ down (1 s, 2 s, ... 60 s) ──▶ starting
                   ├──WorkerUnable, at the first start──▶ unable: a person must fix something
                   └──TaskFailed, after some restarts──▶ given up (`restart_policy.py`)
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio
from msgspec.structs import replace

from daemon.children.messages import CommandDone, frame
from daemon.device.messages import (
    BatchPartFound,
    BatchUnusable,
    CommandRefused,
    EvaluationUnable,
    GroupsMeasured,
    LoadTask,
    ModelEvaluated,
    ModelExported,
    ModelSampled,
    ResultUnable,
    TaskFailed,
    WorkCollected,
    WorkerProgress,
    WorkerReady,
    WorkerUnable,
    WorkerWarning,
)
from daemon.device.process.fault_reporter import TaskFaultReporter
from daemon.device.process.launch import STDERR_GRACE_S
from daemon.device.process.restart_policy import RestartPolicy, TaskFailure, WorkerTimeouts
from daemon.device.process.worker_process import WorkerProcess
from daemon.device.settings import Job, WorkerSettings
from daemon.device.shared_memory import SharedMemory
from protocol.errors import UserError
from protocol.journal import (
    JournalEvent,
    TrainerReady,
    TrainerStopped,
    TrainingProgress,
    Warned,
)
from protocol.ports.trainer import Progress, TaskInfo, TrainerLost
from protocol.run.task_digest import TaskDigest, changed_parameters, difference

log = logging.getLogger("hypergpu.worker")

NO_PROGRESS = Progress(steps=0, samples=0, loss=None, samples_per_second=0.0)


class WorkerSupervisor:
    """Keeps one worker process running.

    The trainer reads the attributes, and sends its commands to the `current` worker.
    """

    def __init__(
        self,
        job: Job,
        settings: WorkerSettings,
        on_event: Callable[[JournalEvent], None],
        timeouts: WorkerTimeouts,
        previous_task: TaskDigest | None = None,
        keep_part: Callable[[int], None] | None = None,
    ) -> None:
        """`previous_task` is the task of the model that this home holds.

        The worker's task must be able to read that model. `keep_part` keeps the number of samples
        that the device computes at once, for the next start.
        """
        self._keep_part = keep_part
        self._job = job
        self._settings = settings
        self._on_event = on_event
        self._timeouts = timeouts
        self._previous_task = previous_task
        self.current: WorkerProcess | None = None
        self.info: TaskInfo | None = None
        # Why no worker will become ready any more.
        self.unable: UserError | TrainerLost | None = None
        # Why the last worker ended; empty while none has.
        self.lost = ""
        self.restarts = RestartPolicy(timeouts)
        # Why the task will not be restarted any more.
        self.gave_up: TaskFailure | None = None
        # Whether any sample was trained.
        self.trained = False
        self.progress = NO_PROGRESS
        self._faults = TaskFaultReporter(on_event)
        # Set and replaced whenever a worker becomes ready, ends, or cannot start.
        self.changed = trio.Event()

    def end(self) -> None:
        """Note that the trainer was stopped: no worker will become ready any more."""
        self.unable = TrainerLost("the trainer was stopped")

    async def supervise(self) -> None:
        """Start and restart workers until cancelled, or until a person must fix something."""
        while True:
            up_s, failure = 0.0, None
            try:
                worker = WorkerProcess(self._settings)
            except OSError as error:
                # The system has no memory, process or descriptor to give.
                self.lost = f"it could not be started: {error}"
            else:
                up_s = await self._serve(worker)
                failure = worker.failure()
                if worker.unable is not None and self.info is None:
                    self.unable = worker.unable
                    self._wake_waiters()
                    log.error("The worker cannot start: %s", worker.unable)

                    return
            wait_s = self.restarts.ended(failure, up_s)
            self._report_end(failure, wait_s)
            if wait_s is None:
                self._give_up(failure or TaskFailure(what=self.lost))
                return
            await trio.sleep(wait_s)

    def _report_end(self, failure: TaskFailure | None, wait_s: float | None) -> None:
        if failure is not None and failure.trace:
            log.error("%s", failure.trace)
        counted = failure is not None and not failure.passes
        again = f"; trying again in {wait_s:.0f} s" if wait_s is not None and not counted else ""
        self._on_event(
            TrainerStopped(
                reason=f"{failure.what if failure else self.lost}{again}",
                restarts=self.restarts.count,
                failures=self.restarts.failures if counted else 0,
                limit=self._timeouts.restarts if counted else 0,
                for_good=wait_s is None,
                fix=failure.fix if failure else "",
                trace=failure.trace if failure else "",
            )
        )

    def _give_up(self, failure: TaskFailure) -> None:
        self.gave_up, self.lost = failure, failure.what
        if self.info is None:
            self.unable = UserError(
                "TASK_FAILED",
                f"{failure.what}.",
                why=f"{self._timeouts.restarts} restarts did not help, and a node cannot take part"
                " in the run without its task",
                fix=failure.fix
                or "fix the task, then start the node again; the traceback is in the log",
            )
        self._wake_waiters()

    async def _serve(self, worker: WorkerProcess) -> float:
        """Serve one worker until it has ended. Returns how many seconds it was ready.

        On return the process is reaped, and `lost` says why it ended.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker.process.listen_to_errors)
                nursery.start_soon(worker.process.hang_up_when_gone)
                nursery.start_soon(self._watch_start, worker)
                await self._receive(worker)
                worker.started.set()
                with trio.CancelScope(shield=True):
                    await worker.process.ended()
                nursery.cancel_scope.deadline = trio.current_time() + STDERR_GRACE_S
        finally:
            # The worker still runs when the trainer is stopped. It has nothing to save.
            with trio.CancelScope(shield=True):
                if not worker.process.reaped:
                    worker.process.kill("the node is stopping")
                    await worker.process.ended()
                await worker.process.close_errors()
            self.lost = worker.why()
            self.current = None
            self.progress = NO_PROGRESS
            worker.answered.set()
            worker.evaluation_ended.set()
            self._wake_waiters()
        return trio.current_time() - worker.up_since if worker.up_since else 0.0

    async def _watch_start(self, worker: WorkerProcess) -> None:
        limit_s = (
            self._settings.load_timeout_s
            if self._timeouts.start_s is None
            else self._timeouts.start_s
        )
        with trio.move_on_after(limit_s):
            await worker.started.wait()
            return
        worker.failed = TaskFailure(
            what=f"The task was not up after {limit_s:g} s",
            fix="load less in __init__() and model(), or raise [worker] load_timeout_s",
        )
        worker.process.kill(f"it was not up after {limit_s:g} s")

    async def _receive(self, worker: WorkerProcess) -> None:
        begin = LoadTask(job=self._job, settings=self._settings)
        try:
            await worker.process.send(frame(begin))
        except trio.BrokenResourceError:
            return
        async for report in worker.process.reports():
            match report:
                case WorkerReady():
                    self._accept(worker, report)
                case WorkerUnable(code=code, what=what, why=why, fix=fix, exit_code=exit_code):
                    worker.unable = UserError(code, what, why=why, fix=fix, exit_code=exit_code)
                case TaskFailed(what=what, fix=fix, trace=trace, passes=passes):
                    worker.failed = TaskFailure(what=what, fix=fix, trace=trace, passes=passes)
                case BatchUnusable():
                    self._faults.batch_skipped(report)
                case WorkerProgress() if report.stretch == worker.stretch:
                    self._follow(worker, report)
                case (
                    ModelEvaluated(id=number)
                    | GroupsMeasured(id=number)
                    | EvaluationUnable(id=number)
                ) if number == worker.evaluation:
                    worker.evaluated = report
                    worker.evaluation_ended.set()
                    if isinstance(report, EvaluationUnable):
                        self._faults.not_scored(report)
                case BatchPartFound(samples=samples, batch_size=batch_size):
                    await self._note_part(samples, batch_size)
                case WorkerWarning(code=code, message=message):
                    self._on_event(Warned(code=code, message=message))
                case (
                    CommandDone(id=number)
                    | CommandRefused(id=number)
                    | WorkCollected(id=number)
                    | ModelSampled(id=number)
                    | ModelExported(id=number)
                    | ResultUnable(id=number)
                ) if number == worker.asked:
                    if isinstance(report, WorkCollected):
                        worker.longest_step_s = report.longest_step_s
                        self.trained = self.trained or report.samples > 0
                    worker.answer = report
                    worker.answered.set()
                case _:
                    log.debug("The worker sent a late report: %s", report)

    def _accept(self, worker: WorkerProcess, ready: WorkerReady) -> None:
        if self.info is not None and (changed := difference(self.info.task, ready.info.task)):
            changed = changed.replace("the other node's", "the restarted worker's").replace(
                "the other node", "the restarted worker"
            )
            worker.failed = TaskFailure(
                what=f"The task has changed since this node started: {changed}",
                fix="start the node again",
            )
            worker.process.kill("its task has changed")
            return
        if (
            self.info is None
            and self._previous_task is not None
            and (changed := changed_parameters(self._previous_task, ready.info.task))
        ):
            worker.unable = UserError(
                "TASK_CHANGED",
                "The task's model differs from the one that this home holds.",
                why=f"{changed}; the parameters of one model mean nothing in the other",
                fix="use the version of the task that trained the model, or begin another run, with"
                " another name or seed in its run file",
                exit_code=2,
            )
            worker.process.kill("its task's model differs from the one that this home holds")
            return
        try:
            worker.buffers = SharedMemory(
                worker.process.memory_fd, ready.info.parameters, ready.inner
            )
        except (ValueError, OSError) as error:
            worker.process.kill(f"its memory cannot be shared: {error}")
            return
        worker.started.set()
        worker.up_since = trio.current_time()
        self.current, self.info = worker, ready.info
        self._wake_waiters()
        self._on_event(
            TrainerReady(
                device=ready.info.device,
                parameters=ready.info.parameters,
                threads=ready.info.threads,
            )
        )

    async def _note_part(self, samples: int, batch_size: int) -> None:
        self._faults.batch_part(samples, self._job.batch_part or batch_size)
        self._job = replace(self._job, batch_part=samples)
        if self._keep_part is not None:
            await trio.to_thread.run_sync(self._keep_part, samples)

    def _follow(self, worker: WorkerProcess, report: WorkerProgress) -> None:
        worker.longest_step_s = report.longest_step_s
        self.trained = self.trained or report.samples > 0
        self.progress = Progress(
            steps=report.steps,
            samples=report.samples,
            loss=report.loss,
            samples_per_second=report.samples_per_second,
        )
        self._on_event(
            TrainingProgress(
                samples=report.samples,
                loss=report.loss,
                samples_per_second=report.samples_per_second,
            )
        )

    def _wake_waiters(self) -> None:
        self.changed.set()
        self.changed = trio.Event()
