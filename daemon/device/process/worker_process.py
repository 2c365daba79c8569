"""Holds one worker process, the last command that it got, and why it ended."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from pathlib import Path

import trio

from daemon.device.messages import EvaluationUnable, GroupsMeasured, ModelEvaluated, WorkerReport
from daemon.device.model.author_code import OUT_OF_MEMORY, is_library
from daemon.device.process.launch import start_worker
from daemon.device.process.restart_policy import TaskFailure
from daemon.device.settings import WorkerSettings
from daemon.device.shared_memory import SharedMemory
from protocol.errors import UserError

# The signals that a process causes itself, at the same place each time. Other processes send the
# rest.
_OWN_SIGNALS = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSYS}
)
# The last line of a process that ran out of memory before it could report that.
_OUT_OF_MEMORY = re.compile(r"[\w.]*(MemoryError|OutOfMemoryError)\b|.*std::bad_alloc")
_FRAME = re.compile(r'\s*File "(?P<file>.+)", line (?P<line>\d+) in (?P<name>.+)$')


class WorkerProcess:
    """One worker process. Only the supervisor and the trainer change its attributes."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Spawn the process. Raises `OSError`."""
        self.process = start_worker(settings)
        # Set when the worker is ready.
        self.buffers: SharedMemory | None = None
        self.unable: UserError | None = None
        # The failure that the worker reported, or that the supervisor found.
        self.failed: TaskFailure | None = None
        # Set when the worker is ready, or has ended before that.
        self.started = trio.Event()
        self.up_since = 0.0
        self.longest_step_s = 0.0
        self.anchored = False
        # Whether the caller got the work of the last `WorkCollected`.
        self.received = False
        self.stretch = 0
        self.asked = 0
        self.answer: WorkerReport | None = None
        # Set with the answer, and without one at the end of the process.
        self.answered = trio.Event()
        self.answered.set()
        # The last evaluation that was asked for, and its result. Set at its end, and that of the
        # process.
        self.evaluation = 0
        self.evaluated: ModelEvaluated | GroupsMeasured | EvaluationUnable | None = None
        self.evaluation_ended = trio.Event()
        self.evaluation_ended.set()

    def why(self) -> str:
        """Return why it ended, as a sentence without its full stop. Call after it was reaped."""
        if self.failed is not None:
            return self.failed.what.partition(". ")[0]
        return self.unable.what.rstrip(".") if self.unable else self.process.why()

    def failure(self) -> TaskFailure | None:
        """Return what a person must fix, or None. Call after it was reaped.

        None means that a restart may help.
        """
        if self.failed is not None:
            return self.failed
        if self.unable is not None:
            return TaskFailure(
                what=self.unable.what.rstrip("."), fix=self.unable.fix, trace=self.unable.why
            )
        code = self.process.code
        if self.process.was_killed or code is None or (code < 0 and -code not in _OWN_SIGNALS):
            return None
        lines = self.process.last_lines
        if any(_OUT_OF_MEMORY.match(line) for line in lines):
            return TaskFailure(what=OUT_OF_MEMORY, trace="\n".join(lines), passes=True)
        crash = _crash(code, lines)
        return TaskFailure(
            what=crash or f"The worker failed: {self.process.why()}", trace="\n".join(lines)
        )


def _crash(code: int, lines: Sequence[str]) -> str:
    """Return where a process was when its own signal ended it, from `faulthandler`'s lines.

    Returns "" where that is not known.
    """

    if code >= 0:
        return ""
    began = next((at for at, line in enumerate(lines) if line.startswith("Current thread")), None)
    frames = (
        [found for line in lines[began:] if (found := _FRAME.match(line))]
        if began is not None
        else []
    )
    if not frames:
        return ""
    own = next((frame for frame in frames if not is_library(frame["file"])), frames[0])
    place = f"{Path(own['file']).name}:{own['line']} {own['name']}()"
    return f"The task crashed with {signal.Signals(-code).name} in {place}"
