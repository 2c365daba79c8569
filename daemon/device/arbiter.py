"""The worker's conversation with its node: commands are obeyed between two steps, everything else
is training.

Worker process only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic
from typing import NoReturn

from daemon.children.messages import ChildMessage, CommandDone
from daemon.device import shared_memory
from daemon.device.loops.training import TrainingLoop, WorkTotals
from daemon.device.messages import (
    CollectWork,
    CommandRefused,
    LoadInnerState,
    LoadTask,
    ResumeTraining,
    SaveInnerState,
    TaskFailed,
    TrainFromAnchor,
    WorkCollected,
    WorkerCommand,
    WorkerProgress,
    WorkerReady,
    WorkerUnable,
    WorkerWarning,
)
from daemon.device.model.author_code import MemoryShort, SampleFault, TaskFault, memory_short
from daemon.device.processor import Device
from daemon.device.tasks.catalog import load_task
from daemon.device.tasks.description import seed_everything
from protocol.errors import UserError
from protocol.ports.trainer import TaskInfo

# What a live view needs; a report costs one small message and, on CUDA, one wait for the device.
REPORT_EVERY_S = 0.5


class DeviceArbiter:
    """One life of the worker process.

    `run` never returns but by `SystemExit` or a failure of the task.
    """

    def __init__(
        self,
        inbox: SimpleQueue[WorkerCommand],
        send: Callable[[ChildMessage], None],
        memory_fd: int,
    ) -> None:
        self._inbox = inbox
        self._send = send
        self._memory_fd = memory_fd
        self._stretch = 0
        self._reported_at = 0.0

    def run(self) -> None:
        """Load the task, then train and obey.

        A `UserError` while loading is told to the node and ends the process with its exit code.
        """
        begin = self._inbox.get()
        if not isinstance(begin, LoadTask):
            raise TypeError(f"the first command is Begin, not {type(begin).__name__}")
        try:
            self._live(begin)
        except UserError as error:
            self._send(
                WorkerUnable(
                    code=error.code,
                    what=error.what,
                    why=error.why,
                    fix=error.fix,
                    exit_code=error.exit_code,
                )
            )
            raise SystemExit(error.exit_code) from None
        except TaskFault as fault:
            self._send(TaskFailed(what=fault.what, fix=fault.fix, trace=fault.trace))
            raise SystemExit(1) from None
        except MemoryShort as short:
            self._end_short(short)
        # An allocator raises one of these. In our own code, such as the optimizer's step, they are
        # not the task's.
        except (MemoryError, RuntimeError, OSError) as error:
            if (short_of := memory_short("training", error)) is None:
                raise
            self._end_short(short_of)

    def _end_short(self, short: MemoryShort) -> NoReturn:
        """A new process begins with no fragments.

        The node starts one when the machine may have room.
        """
        self._send(TaskFailed(what=short.what, fix="", trace=short.trace, passes=True))
        raise SystemExit(1)

    def _live(self, begin: LoadTask) -> None:
        loop = self._load(begin)
        while True:
            if loop.training and self._inbox.empty():
                self._step(loop)
                self._report(loop)
            else:
                self._obey(loop, self._inbox.get())

    def _load(self, begin: LoadTask) -> TrainingLoop:
        job = begin.job
        os.nice(begin.settings.nice)
        device = Device(begin.settings)
        device.claim()
        seed_everything(job.seed)
        task = load_task(job.task, job.task_options, begin.settings)
        loop = TrainingLoop(task, device, job)
        shared_memory.give_size(self._memory_fd, loop.parameters, loop.inner_size)
        loop.share(shared_memory.SharedMemory(self._memory_fd, loop.parameters, loop.inner_size))
        info = TaskInfo(
            parameters=loop.parameters,
            specs=loop.specs,
            dataset_size=loop.dataset_size,
            device=device.name(),
            threads=device.threads,
            task=loop.describe(),
        )
        self._send(WorkerReady(info=info, inner=loop.inner_size))
        return loop

    def _step(self, loop: TrainingLoop) -> None:
        try:
            loop.step()
        except SampleFault:
            if loop.bad.tell and loop.bad.last is not None:
                self._send(loop.bad.last)
            if loop.bad.diverged:
                self._drop(loop, loop.pause().samples)

    def _obey(self, loop: TrainingLoop, command: WorkerCommand) -> None:
        match command:
            case TrainFromAnchor(id=number, lane=lane, max_steps=max_steps):
                self._guarded(number, lambda: loop.train(lane, max_steps))
                self._stretch = number
            case ResumeTraining(id=number) if not loop.anchored:
                self._send(
                    CommandRefused(id=number, why="there is nothing to resume: no anchor was given")
                )
            case ResumeTraining(id=number, lane=lane, max_steps=max_steps, taken=taken):
                if taken:
                    loop.rebase()
                self._guarded(number, lambda: loop.resume(lane, max_steps))
                self._stretch = number
            case CollectWork(id=number, taken=taken):
                if taken:
                    loop.rebase()
                self._collect(loop, number)
            case SaveInnerState(id=number) | LoadInnerState(id=number) if loop.training:
                self._send(CommandRefused(id=number, why="it is training: collect first"))
            case SaveInnerState(id=number):
                self._guarded(number, loop.save_inner)
            case LoadInnerState(id=number):
                self._guarded(number, loop.load_inner)
            case LoadTask():
                raise TypeError("Begin comes once")

    def _guarded(self, number: int, act: Callable[[], None]) -> None:
        try:
            act()
        except ValueError as error:
            self._send(CommandRefused(id=number, why=str(error), unfit=True))
        else:
            self._send(CommandDone(id=number))

    def _collect(self, loop: TrainingLoop, number: int) -> None:
        work = loop.pause()
        if not loop.finite():
            work = self._drop(loop, work.samples)
        self._send(
            WorkCollected(
                id=number,
                samples=work.samples,
                steps=work.steps,
                loss=work.loss,
                seconds=work.seconds,
                longest_step_s=loop.longest_step_s,
            )
        )

    def _report(self, loop: TrainingLoop) -> None:
        """Twice a second, and at once when a stretch has come to its end."""
        now = monotonic()
        if loop.training and now - self._reported_at < REPORT_EVERY_S:
            return
        self._reported_at = now
        progress = loop.progress()
        if progress.loss is not None and not math.isfinite(progress.loss):
            self._drop(loop, progress.samples)
            return
        self._send(
            WorkerProgress(
                stretch=self._stretch,
                steps=progress.steps,
                samples=progress.samples,
                loss=progress.loss,
                samples_per_second=progress.samples_per_second,
                longest_step_s=loop.longest_step_s,
            )
        )

    def _drop(self, loop: TrainingLoop, samples: int) -> WorkTotals:
        nothing = loop.drop()
        self._send(
            WorkerWarning(
                code="NON_FINITE",
                message=f"training went to infinity: the work of {samples} samples was dropped here and offered to nobody. "
                "Training waits for the next anchor; if it happens again, the run's learning rate is too high.",
            )
        )
        return nothing
