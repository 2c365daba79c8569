"""Defines the messages between a node and its worker: small msgpack records, never a tensor.

The node sends one command at a time. `HandOverWork`, `ShiftAnchor`, `EvaluateModel`,
`MeasureGroups` and `SaveInnerState` are answered while a step is computed, the others at its end.
The worker answers each once, with its `id`. The first command is `LoadTask`, which `WorkerReady` or
`WorkerUnable` answers. The worker sends `WorkerProgress`, `BatchUnusable` and `WorkerWarning` on
its own. `TaskFailed` may come at any time, and is the last message.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from daemon.children.messages import ChildMessage, CommandDone
from daemon.device.settings import Job, WorkerSettings
from protocol.generation.sampler import SamplingRules
from protocol.ports.trainer import Evaluation, GroupLosses, HeldOutShare, Lane, TaskInfo


class LoadTask(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Load the job's task."""

    job: Job
    settings: WorkerSettings


class TrainFromAnchor(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Train from the shared anchor, at a position of the run's schedules."""

    id: int
    lane: Lane
    position: int = 0
    max_steps: int | None


class ContinueTraining(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Continue to train.

    `received` says that the caller got the work of the last `WorkCollected`. Otherwise that work
    stays part of the next one.
    """

    id: int
    lane: Lane
    position: int | None = None
    max_steps: int | None
    received: bool


class HandOverWork(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Write the work of the finished steps into the shared delta, and train on, now from `lane`.

    `received` is as in `ContinueTraining`.
    """

    id: int
    lane: Lane
    position: int | None
    received: bool


class ShiftAnchor(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Move to the shared anchor with the steps since the last hand-over, and train on.

    `received` is as in `ContinueTraining`.
    """

    id: int
    lane: Lane
    position: int
    max_steps: int | None
    received: bool


class CollectWork(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Pause, and write the work into the shared delta. `received` is as in `ContinueTraining`."""

    id: int
    received: bool


class EvaluateModel(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Score the shared parameters at the end of a step.

    It is answered at once. `ModelEvaluated` or `EvaluationUnable` follows.
    """

    id: int
    share: HeldOutShare


class SampleModel(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Write samples with the shared parameters: texts of at most `tokens`, or predictions."""

    id: int
    prompt: str
    count: int
    tokens: int
    rules: SamplingRules


class ExportModel(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Write the model with the shared parameters into an empty folder.

    `adapter` means the adapter alone, in the form "hf".
    """

    id: int
    folder: str
    form: Literal["torch", "hf"]
    adapter: bool


class MeasureGroups(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Measure the loss of groups of training samples at the shared parameters, as `EvaluateModel`.

    `groups` are positions in the run's order. `GroupsMeasured` or `EvaluationUnable` follows.
    """

    id: int
    groups: tuple[tuple[int, ...], ...]


class SaveInnerState(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Write the inner optimizer's state into the shared memory."""

    id: int


class LoadInnerState(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Read the inner optimizer's state from the shared memory."""

    id: int


class WorkerReady(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The task is loaded, and the shared memory has its size.

    `inner` is the length of the inner optimizer's state.
    """

    info: TaskInfo
    inner: int


class WorkerUnable(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The fields of a `UserError` that the worker raised at its start."""

    code: str
    what: str
    why: str
    fix: str
    exit_code: int


class TaskFailed(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The task failed or broke a rule, and the worker ends. A person must fix the task.

    `what` is a sentence without its full stop, which names the file and the line. `trace` is the
    traceback, or empty. `passes` says that memory was short, which may pass by itself.
    """

    what: str
    fix: str
    trace: str
    passes: bool = False


class BatchUnusable(ChildMessage, frozen=True, kw_only=True, tag=True):
    """A batch was skipped; `where` names its samples.

    This worker process has skipped `skipped` of `drawn` batches.
    """

    what: str
    where: str
    trace: str
    skipped: int
    drawn: int


class CommandRefused(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The command does not fit the worker's state, or its values are `unfit`.

    Examples are to resume without an anchor, and to save while training.
    """

    id: int
    why: str
    unfit: bool = False


class WorkCollected(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The shared memory holds the delta.

    `longest_step_s` is the longest step since the process started, `step_s` the time of the step in
    progress, and `drawn` the samples used of the lane before this command.
    """

    id: int
    samples: int
    steps: int
    loss: float | None
    seconds: float
    longest_step_s: float
    step_s: float = 0.0
    drawn: int = 0


class ModelEvaluated(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The result of `EvaluateModel`."""

    id: int
    evaluation: Evaluation


class GroupsMeasured(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The result of `MeasureGroups`."""

    id: int
    losses: GroupLosses


class EvaluationUnable(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The task cannot score. `what` names the file and the line."""

    id: int
    what: str
    trace: str


class ModelSampled(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The result of `SampleModel`."""

    id: int
    texts: tuple[str, ...]


class ModelExported(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The result of `ExportModel`: the names of the files."""

    id: int
    files: tuple[str, ...]


class ResultUnable(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The task cannot write samples or exports. `what` names the file and the line."""

    id: int
    what: str
    fix: str
    trace: str


class WorkerProgress(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The progress of the stretch that the command `stretch` began.

    `loss` is the mean since the last report. The other figures count from the stretch's beginning,
    except `longest_step_s`, which counts from the start of the process.
    """

    stretch: int
    steps: int
    samples: int
    loss: float | None
    samples_per_second: float
    longest_step_s: float


class BatchPartFound(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Memory was enough for a step that computed `samples` of `batch_size` samples at once."""

    samples: int
    batch_size: int


class WorkerWarning(ChildMessage, frozen=True, kw_only=True, tag=True):
    """A warning for a person, as in `protocol.journal.Warned`."""

    code: str
    message: str


WorkerCommand = (
    LoadTask
    | TrainFromAnchor
    | ContinueTraining
    | HandOverWork
    | ShiftAnchor
    | CollectWork
    | EvaluateModel
    | SampleModel
    | ExportModel
    | MeasureGroups
    | SaveInnerState
    | LoadInnerState
)
WorkerReport = (
    WorkerReady
    | WorkerUnable
    | TaskFailed
    | BatchUnusable
    | CommandDone
    | CommandRefused
    | WorkCollected
    | ModelEvaluated
    | GroupsMeasured
    | EvaluationUnable
    | ModelSampled
    | ModelExported
    | ResultUnable
    | WorkerProgress
    | BatchPartFound
    | WorkerWarning
)

_commands: msgspec.msgpack.Decoder[WorkerCommand] = msgspec.msgpack.Decoder(WorkerCommand)
_reports: msgspec.msgpack.Decoder[WorkerReport] = msgspec.msgpack.Decoder(WorkerReport)


def decode_command(body: bytes) -> WorkerCommand:
    """Decode a command. Raises `msgspec.DecodeError`."""
    return _commands.decode(body)


def decode_report(body: bytes) -> WorkerReport:
    """Decode a report. Raises `msgspec.DecodeError`."""

    return _reports.decode(body)
