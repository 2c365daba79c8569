"""One worker process from spawn to death, with the question it was asked last, and why it ended."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from pathlib import Path

import trio

from daemon.device.messages import WorkerReport
from daemon.device.model.author_code import OUT_OF_MEMORY, is_library
from daemon.device.process.launch import start_worker
from daemon.device.process.restart_policy import TaskFailure
from daemon.device.settings import WorkerSettings
from daemon.device.shared_memory import SharedMemory
from protocol.errors import UserError

# What a process does to itself, at the same place each time it comes there. Everything else is done
# to it by others.
_OWN_SIGNALS = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSYS}
)
# What the last line of a process says that ended where no memory was left, before it could report
# that.
_OUT_OF_MEMORY = re.compile(r"[\w.]*(MemoryError|OutOfMemoryError)\b|.*std::bad_alloc")
_FRAME = re.compile(r'\s*File "(?P<file>.+)", line (?P<line>\d+) in (?P<name>.+)$')


class WorkerProcess:
    """Changed by the supervisor alone."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Raises `OSError` when there is no process to be had."""
        self.process = start_worker(settings)
        self.buffers: SharedMemory | None = None  # set when it is up
        self.unable: UserError | None = None
        # As it said itself, or as the supervisor found.
        self.failed: TaskFailure | None = None
        self.started = trio.Event()  # it is up, or it will never be
        self.up_since = 0.0
        self.longest_step_s = 0.0
        self.anchored = False
        # Whether the work of the last Collected reached our caller.
        self.taken = False
        self.stretch = 0
        self.asked = 0
        self.answer: WorkerReport | None = None
        self.answered = trio.Event()  # also set by its death, with no answer
        self.answered.set()

    def why(self) -> str:
        """Why it ended, in one sentence without its full stop. After it was reaped."""
        if self.failed is not None:
            return self.failed.what.partition(". ")[0]
        return self.unable.what.rstrip(".") if self.unable else self.process.why()

    def failure(self) -> TaskFailure | None:
        """What a person must mend, None where the death may not come again. After it was reaped."""
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
    """Where a process was when a signal of its own ended it, as `faulthandler` writes it; empty
    where that is not known.
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
    return f"The task crashed with {signal.Signals(-code).name} in {Path(own['file']).name}:{own['line']} {own['name']}()"
