"""The lives of a node's worker: spawned, listened to, started again when it dies alone, given up
when its task fails by itself.

down ──spawn──▶ starting ──Up──▶ up ──exit, hang──▶ down (wait 1 s, 2 s, ... 60 s) ──▶ starting ...
                   ├──Unable, first time──▶ unable: a person has to mend something
                   └──Failed, after a few restarts──▶ given up (`restarts.py`); unable where it never was up
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from daemon.children.messages import CommandDone, frame
from daemon.device.messages import (
    BatchUnusable,
    CommandRefused,
    LoadTask,
    TaskFailed,
    WorkCollected,
    WorkerProgress,
    WorkerReady,
    WorkerUnable,
    WorkerWarning,
)
from daemon.device.process.launch import STDERR_GRACE_S
from daemon.device.process.restart_policy import RestartPolicy, TaskFailure, WorkerTimeouts
from daemon.device.process.worker_process import WorkerProcess
from daemon.device.settings import Job, WorkerSettings
from daemon.device.shared_memory import SharedMemory
from protocol.errors import UserError
from protocol.journal import (
    BatchSkipped,
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
    """Keeps one worker alive.

    Its attributes are read by the trainer, which asks the worker that is `up`.
    """

    def __init__(
        self,
        job: Job,
        settings: WorkerSettings,
        on_event: Callable[[JournalEvent], None],
        patience: WorkerTimeouts,
        before: TaskDigest | None = None,
    ) -> None:
        """`before` is the task of the model that this home holds: the worker's must be able to read
        that model.
        """
        self._job = job
        self._settings = settings
        self._on_event = on_event
        self._patience = patience
        self._before = before
        self.up: WorkerProcess | None = None
        self.info: TaskInfo | None = None
        self.unable: UserError | TrainerLost | None = None  # why none will come up any more
        # Why the last one died; empty while none has.
        self.lost = ""
        self.restarts = RestartPolicy(patience)
        self.gave_up: TaskFailure | None = None  # why the task will not be tried any more
        self.trained = False  # whether any sample was
        self.progress = NO_PROGRESS
        # Set and replaced whenever one comes up, dies, or cannot.
        self.turn = trio.Event()

    def end(self) -> None:
        """No worker will come up any more: the trainer was stopped."""
        self.unable = TrainerLost("the trainer was stopped")

    async def supervise(self) -> None:
        while True:
            up_s, failure = 0.0, None
            try:
                life = WorkerProcess(self._settings)
            except OSError as error:
                # No memory, no process, no descriptor to be had.
                self.lost = f"it could not be started: {error}"
            else:
                up_s = await self._live(life)
                failure = life.failure()
                if life.unable is not None and self.info is None:
                    self.unable = life.unable
                    self._next_turn()
                    log.error("the worker cannot start: %s", life.unable)
                    return
            wait_s = self.restarts.ended(failure, up_s)
            self._tell_end(failure, wait_s)
            if wait_s is None:
                self._give_up(failure or TaskFailure(what=self.lost))
                return
            await trio.sleep(wait_s)

    def _tell_end(self, failure: TaskFailure | None, wait_s: float | None) -> None:
        if failure is not None and failure.trace:
            log.error("%s", failure.trace)
        counted = failure is not None and not failure.passes
        again = f"; trying again in {wait_s:.0f} s" if wait_s is not None and not counted else ""
        self._on_event(
            TrainerStopped(
                reason=f"{failure.what if failure else self.lost}{again}",
                restarts=self.restarts.count,
                failures=self.restarts.failures if counted else 0,
                limit=self._patience.restarts if counted else 0,
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
                why=f"restarting it ({self._patience.restarts} times) did not help, and without its task a node has no part in the run",
                fix=failure.fix
                or "mend the task, then start the node again; the traceback is in the log",
            )
        self._next_turn()

    async def _live(self, life: WorkerProcess) -> float:
        """One worker's whole life.

        Returns how long it was up, after it was reaped and `_lost` says why it ended.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(life.process.listen_to_errors)
                nursery.start_soon(life.process.hang_up_when_gone)
                nursery.start_soon(self._watch_start, life)
                await self._converse(life)
                life.started.set()
                with trio.CancelScope(shield=True):
                    await life.process.ended()
                nursery.cancel_scope.deadline = trio.current_time() + STDERR_GRACE_S
        finally:
            # Reached with the worker alive when `running` ends. It has nothing to save, so it is
            # simply ended.
            with trio.CancelScope(shield=True):
                if not life.process.reaped:
                    life.process.kill("the node is stopping")
                    await life.process.ended()
                await life.process.close_errors()
            self.lost = life.why()
            self.up = None
            self.progress = NO_PROGRESS
            life.answered.set()
            self._next_turn()
        return trio.current_time() - life.up_since if life.up_since else 0.0

    async def _watch_start(self, life: WorkerProcess) -> None:
        limit_s = (
            self._settings.load_timeout_s
            if self._patience.start_s is None
            else self._patience.start_s
        )
        with trio.move_on_after(limit_s):
            await life.started.wait()
            return
        life.failed = TaskFailure(
            what=f"The task was not up after {limit_s:g} s",
            fix="let it load less in __init__() and model(), or allow more: [worker] load_timeout_s",
        )
        life.process.kill(f"it was not up after {limit_s:g} s")

    async def _converse(self, life: WorkerProcess) -> None:
        begin = LoadTask(job=self._job, settings=self._settings)
        try:
            await life.process.send(frame(begin))
        except trio.BrokenResourceError:
            return
        async for report in life.process.reports():
            match report:
                case WorkerReady():
                    self._welcome(life, report)
                case WorkerUnable(code=code, what=what, why=why, fix=fix, exit_code=exit_code):
                    life.unable = UserError(code, what, why=why, fix=fix, exit_code=exit_code)
                case TaskFailed(what=what, fix=fix, trace=trace, passes=passes):
                    life.failed = TaskFailure(what=what, fix=fix, trace=trace, passes=passes)
                case BatchUnusable():
                    self._tell_skipped(report)
                case WorkerProgress() if report.stretch == life.stretch:
                    self._follow(life, report)
                case WorkerWarning(code=code, message=message):
                    self._on_event(Warned(code=code, message=message))
                case (
                    CommandDone(id=number) | CommandRefused(id=number) | WorkCollected(id=number)
                ) if number == life.asked:
                    if isinstance(report, WorkCollected):
                        life.longest_step_s = report.longest_step_s
                        self.trained = self.trained or report.samples > 0
                    life.answer = report
                    life.answered.set()
                case _:
                    log.debug("the worker said something late: %s", report)

    def _tell_skipped(self, report: BatchUnusable) -> None:
        if report.trace:
            log.warning("%s", report.trace)
        self._on_event(
            BatchSkipped(
                what=report.what,
                where=report.where,
                skipped=report.skipped,
                drawn=report.drawn,
                trace=report.trace,
            )
        )

    def _welcome(self, life: WorkerProcess, up: WorkerReady) -> None:
        if self.info is not None and (changed := difference(self.info.task, up.info.task)):
            changed = changed.replace("the other node's", "the restarted worker's").replace(
                "the other node", "the restarted worker"
            )
            life.failed = TaskFailure(
                what=f"The task is not the one it was when this node started: {changed}",
                fix="start the node again",
            )
            life.process.kill("its task is not the one it had before")
            return
        if (
            self.info is None
            and self._before is not None
            and (changed := changed_parameters(self._before, up.info.task))
        ):
            life.unable = UserError(
                "TASK_CHANGED",
                "The task makes another model than the one that this home holds.",
                why=f"{changed}; read as the other, the same numbers would be no model at all",
                fix="use the version of the task that the model was trained with, or begin another run: another name or seed in its run file",
                exit_code=2,
            )
            life.process.kill("its task makes another model than this home holds")
            return
        try:
            life.buffers = SharedMemory(life.process.memory_fd, up.info.parameters, up.inner)
        except (ValueError, OSError) as error:
            life.process.kill(f"its memory cannot be shared: {error}")
            return
        life.started.set()
        life.up_since = trio.current_time()
        self.up, self.info = life, up.info
        self._next_turn()
        self._on_event(
            TrainerReady(
                device=up.info.device, parameters=up.info.parameters, threads=up.info.threads
            )
        )

    def _follow(self, life: WorkerProcess, report: WorkerProgress) -> None:
        life.longest_step_s = report.longest_step_s
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

    def _next_turn(self) -> None:
        self.turn.set()
        self.turn = trio.Event()
