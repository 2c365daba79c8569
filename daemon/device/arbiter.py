"""Decides which work has the device between two steps. Worker process only.

Commands of the node come first, then the stage of the same node, then training. The stage is a
process of its own, and `device_turn.py` says when training waits for it. The commands of
`CommandInbox.UrgentCommand` do not wait for the end of a step.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from time import monotonic
from typing import NoReturn

from daemon.children.messages import ChildMessage, CommandDone
from daemon.device import shared_memory
from daemon.device.command_inbox import CommandInbox, UrgentCommand, WakeUp
from daemon.device.device_turn import DeviceTurn
from daemon.device.loops.results import ResultFault
from daemon.device.loops.scorer import ScoringFault
from daemon.device.loops.training import TrainingLoop
from daemon.device.loops.work_totals import WorkTotals
from daemon.device.messages import (
    BatchPartFound,
    CollectWork,
    CommandRefused,
    ContinueTraining,
    EvaluateModel,
    EvaluationUnable,
    ExportModel,
    GroupsMeasured,
    HandOverWork,
    LoadInnerState,
    LoadTask,
    MeasureGroups,
    ModelEvaluated,
    ModelExported,
    ModelSampled,
    ResultUnable,
    SampleModel,
    SaveInnerState,
    ShiftAnchor,
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
from protocol.ports.trainer import Evaluation, GroupLosses, TaskInfo

# The page refreshes about this often. A report costs one small message, and on CUDA one wait for
# the device.
REPORT_EVERY_S = 0.5


class DeviceArbiter:
    """Runs the loops of one worker process, and answers its node.

    `run` ends only with `SystemExit`, or with an error of this program.
    """

    def __init__(
        self,
        inbox: CommandInbox,
        send: Callable[[ChildMessage], None],
        memory_fd: int,
    ) -> None:
        self._inbox = inbox
        self._send = send
        self._memory_fd = memory_fd
        self._stretch = 0
        self._reported_at = 0.0

    def run(self) -> None:
        """Load the task, then obey commands and train.

        A `UserError` while loading is reported to the node, and ends the process with its exit
        code.
        """
        begin = self._inbox.get()
        if not isinstance(begin, LoadTask):
            raise TypeError(f"the first command is LoadTask, not {type(begin).__name__}")
        try:
            self._run(begin)
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
            self._end_without_memory(short)
        # An allocator raises one of these. When it does so in our code, such as in the optimizer's
        # step, the task is not at fault.
        except (MemoryError, RuntimeError, OSError) as error:
            if (short_of := memory_short("training", error)) is None:
                raise
            self._end_without_memory(short_of)

    def _end_without_memory(self, short: MemoryShort) -> NoReturn:
        """Report the lack of memory and end the process.

        The node starts a new process, whose memory is not fragmented.
        """
        self._send(TaskFailed(what=short.what, fix="", trace=short.trace, passes=True))
        raise SystemExit(1)

    def _run(self, begin: LoadTask) -> None:
        loop, turn = self._load(begin), DeviceTurn(begin.settings.turn_file)
        while True:
            if loop.training and self._inbox.empty():
                if turn.wait_for_stage():
                    continue
                began = monotonic()
                self._step(loop)
                turn.note_training(monotonic() - began)
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
        loop = TrainingLoop(task, device, job, most_at_once=begin.settings.batch_part)
        shared_memory.give_size(self._memory_fd, loop.parameters, loop.inner_size)
        loop.share(shared_memory.SharedMemory(self._memory_fd, loop.parameters, loop.inner_size))
        info = TaskInfo(
            parameters=loop.parameters,
            specs=loop.specs,
            dataset_size=loop.split.total,
            held_out=loop.split.held_out,
            trained=loop.split.trained,
            device=device.name(),
            threads=device.threads,
            task=loop.describe(),
        )
        self._inbox.obey_at_once(lambda command: self._obey_at_once(loop, device, command))
        self._send(WorkerReady(info=info, inner=loop.inner_size))
        return loop

    def _step(self, loop: TrainingLoop) -> None:
        try:
            loop.step()
        except SampleFault:
            if loop.bad.should_report and loop.bad.last is not None:
                self._send(loop.bad.last)
            if loop.bad.diverged:
                self._warn_dropped(loop.drop())
        else:
            if samples := loop.parts.news():
                batch_size = loop.parts.batch_size
                self._send(BatchPartFound(samples=samples, batch_size=batch_size))

    def _obey_at_once(self, loop: TrainingLoop, device: Device, command: UrgentCommand) -> None:
        """Obey a command in the thread that receives it, perhaps in the midst of a step."""
        device.enter_thread()
        if isinstance(command, SaveInnerState):
            if loop.save_inner():
                self._send(CommandDone(id=command.id))
            else:
                self._send(CommandRefused(id=command.id, why="its parameters are not finite"))
        elif isinstance(command, EvaluateModel | MeasureGroups):
            self._inbox.wait(command)
            self._send(CommandDone(id=command.id))
        elif not loop.anchored:
            self._send(CommandRefused(id=command.id, why="there is no anchor"))
        elif isinstance(command, HandOverWork):
            self._hand_over(loop, command)
        else:
            with loop.lock:
                self._acknowledge(
                    command.id,
                    lambda: loop.shift(
                        command.lane,
                        command.max_steps,
                        position=command.position,
                        received=command.received,
                    ),
                )
                self._stretch = command.id
            self._inbox.wake()

    def _hand_over(self, loop: TrainingLoop, command: HandOverWork) -> None:
        try:
            work, drawn = loop.hand_over(
                command.lane, position=command.position, received=command.received
            )
        except ValueError as error:
            self._send(CommandRefused(id=command.id, why=str(error), unfit=True))
        else:
            self._send_work(loop, command.id, work, drawn)

    def _obey(self, loop: TrainingLoop, command: WorkerCommand | WakeUp) -> None:
        match command:
            case WakeUp():
                pass
            case TrainFromAnchor(id=number, lane=lane, position=begins, max_steps=max_steps):
                self._acknowledge(number, lambda: loop.train(lane, max_steps, position=begins))
                self._stretch = number
            case ContinueTraining(id=number) if not loop.anchored:
                self._send(CommandRefused(id=number, why="there is no anchor to resume from"))
            case ContinueTraining(id=number, lane=lane, position=position, max_steps=max_steps):
                loop.acknowledge(command.received)
                self._acknowledge(number, lambda: loop.resume(lane, max_steps, position=position))
                self._stretch = number
            case CollectWork(id=number, received=received):
                loop.acknowledge(received)
                self._send_work(loop, number, loop.pause(), loop.drawn)
            case EvaluateModel(id=number, share=share):
                self._evaluate(number, lambda: loop.evaluate(share))
            case MeasureGroups(id=number, groups=groups):
                self._evaluate(number, lambda: loop.group_losses(groups))
            case SampleModel() | ExportModel():
                self._use(loop, command)
            case LoadInnerState(id=number) if loop.training:
                self._send(CommandRefused(id=number, why="it is training: collect first"))
            case LoadInnerState(id=number):
                self._acknowledge(number, loop.load_inner)
            case HandOverWork() | ShiftAnchor() | SaveInnerState():
                raise TypeError(f"{type(command).__name__} is obeyed at once")
            case LoadTask():
                raise TypeError("LoadTask comes once")

    def _acknowledge(self, number: int, act: Callable[[], None]) -> None:
        try:
            act()
        except ValueError as error:
            self._send(CommandRefused(id=number, why=str(error), unfit=True))
        else:
            self._send(CommandDone(id=number))

    def _evaluate(self, number: int, score: Callable[[], Evaluation | GroupLosses]) -> None:
        try:
            result = score()
        except ScoringFault as fault:
            self._send(EvaluationUnable(id=number, what=fault.what, trace=fault.trace))
            return
        if isinstance(result, GroupLosses):
            self._send(GroupsMeasured(id=number, losses=result))
        else:
            self._send(ModelEvaluated(id=number, evaluation=result))

    def _use(self, loop: TrainingLoop, command: SampleModel | ExportModel) -> None:
        try:
            if isinstance(command, SampleModel):
                self._send(ModelSampled(id=command.id, texts=loop.sample(command)))
            else:
                self._send(ModelExported(id=command.id, files=loop.export(command)))
        except ResultFault as fault:
            self._send(
                ResultUnable(id=command.id, what=fault.what, fix=fault.fix, trace=fault.trace)
            )
        except UserError as error:
            what = f"{error.what.rstrip('.')}: {error.why}" if error.why else error.what
            self._send(ResultUnable(id=command.id, what=what, fix=error.fix, trace=""))

    def _send_work(self, loop: TrainingLoop, number: int, work: WorkTotals, drawn: int) -> None:
        if work.dropped:
            self._warn_dropped(work.dropped)
        self._send(
            WorkCollected(
                id=number,
                samples=work.samples,
                steps=work.steps,
                loss=work.loss,
                seconds=work.seconds,
                longest_step_s=loop.longest_step_s,
                step_s=loop.step_s(),
                drawn=drawn,
            )
        )

    def _report(self, loop: TrainingLoop) -> None:
        """Report progress every `REPORT_EVERY_S`, and at once at the end of a stretch."""
        now = monotonic()
        if loop.training and now - self._reported_at < REPORT_EVERY_S:
            return
        self._reported_at = now
        with loop.lock:
            progress, stretch = loop.progress(), self._stretch
        if progress.loss is not None and not math.isfinite(progress.loss):
            self._warn_dropped(loop.drop())
            return
        self._send(
            WorkerProgress(
                stretch=stretch,
                steps=progress.steps,
                samples=progress.samples,
                loss=progress.loss,
                samples_per_second=progress.samples_per_second,
                longest_step_s=loop.longest_step_s,
            )
        )

    def _warn_dropped(self, samples: int) -> None:
        self._send(
            WorkerWarning(
                code="NON_FINITE",
                message=f"The loss became NaN or infinite; {samples} samples were discarded."
                " Training waits for the next anchor. If this repeats, lower [inner] learning_rate"
                " or check loss().",
            )
        )
