"""What node and worker say to each other over their socket pair: small msgpack records behind a
length, never a tensor.

Commands go down one at a time and each is answered once, with its `id`. `WorkerProgress`, `BatchUnusable` and
`WorkerWarning` come up by themselves. The first command is `LoadTask`, answered by `WorkerReady` or, when a person
has to mend something, `WorkerUnable`. `TaskFailed` comes last of all, at any time.
"""

from __future__ import annotations

import msgspec

from daemon.children.messages import ChildMessage, CommandDone
from daemon.device.settings import Job, WorkerSettings
from protocol.ports.trainer import Lane, TaskInfo


class LoadTask(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Load the job's task and get ready."""

    job: Job
    settings: WorkerSettings


class TrainFromAnchor(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Take the shared anchor and train from it."""

    id: int
    lane: Lane
    max_steps: int | None


class ResumeTraining(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Train on.

    `taken` says that the work of the last `WorkCollected` arrived; otherwise it stays part of the next
    one.
    """

    id: int
    lane: Lane
    max_steps: int | None
    taken: bool


class CollectWork(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Pause and put what was learned into the shared delta. `taken` as in `ResumeTraining`."""

    id: int
    taken: bool


class SaveInnerState(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Put the inner optimizer's state into the shared memory."""

    id: int


class LoadInnerState(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Take the inner optimizer's state from the shared memory."""

    id: int


class WorkerReady(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The task is loaded and the shared memory has its size; `inner` is the length of the inner
    optimizer's state.
    """

    info: TaskInfo
    inner: int


class WorkerUnable(ChildMessage, frozen=True, kw_only=True, tag=True):
    """A `UserError` at the start, field by field."""

    code: str
    what: str
    why: str
    fix: str
    exit_code: int


class TaskFailed(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The task's own code failed or broke a rule, which a person must mend; the worker ends.

    `what` is a sentence without its full stop and names file and line; `trace` is the traceback,
    empty where nothing was raised. `passes`: memory was short, which may pass.
    """

    what: str
    fix: str
    trace: str
    passes: bool = False


class BatchUnusable(ChildMessage, frozen=True, kw_only=True, tag=True):
    """A batch could not be used: the sample's coordinates are in `where`.

    `skipped` of `drawn` batches of this life were such.
    """

    what: str
    where: str
    trace: str
    skipped: int
    drawn: int


class CommandRefused(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The command does not fit the worker's state (to resume without an anchor, to save while
    training), or its values are `unfit`.
    """

    id: int
    why: str
    unfit: bool = False


class WorkCollected(ChildMessage, frozen=True, kw_only=True, tag=True):
    """The delta is in the shared memory.

    `longest_step_s` is of this worker's whole life, as in `WorkerProgress`.
    """

    id: int
    samples: int
    steps: int
    loss: float | None
    seconds: float
    longest_step_s: float


class WorkerProgress(ChildMessage, frozen=True, kw_only=True, tag=True):
    """How the stretch begun by command `stretch` goes.

    `loss` is the mean since the last report, the rest since the stretch began.
    """

    stretch: int
    steps: int
    samples: int
    loss: float | None
    samples_per_second: float
    longest_step_s: float


class WorkerWarning(ChildMessage, frozen=True, kw_only=True, tag=True):
    """Something a person should hear of, as in `protocol.journal.Warned`."""

    code: str
    message: str


WorkerCommand = (
    LoadTask | TrainFromAnchor | ResumeTraining | CollectWork | SaveInnerState | LoadInnerState
)
WorkerReport = (
    WorkerReady
    | WorkerUnable
    | TaskFailed
    | BatchUnusable
    | CommandDone
    | CommandRefused
    | WorkCollected
    | WorkerProgress
    | WorkerWarning
)

_commands: msgspec.msgpack.Decoder[WorkerCommand] = msgspec.msgpack.Decoder(WorkerCommand)
_reports: msgspec.msgpack.Decoder[WorkerReport] = msgspec.msgpack.Decoder(WorkerReport)


def decode_command(body: bytes) -> WorkerCommand:
    """Raises `msgspec.DecodeError` (of which `ValidationError` is one)."""
    return _commands.decode(body)


def decode_report(body: bytes) -> WorkerReport:
    """Raises `msgspec.DecodeError` (of which `ValidationError` is one)."""
    return _reports.decode(body)
