"""Sets up logging: lines for people on stderr, and JSON lines in a bounded file.

The composition root calls `set_up_logging` once, after the import of libp2p: libp2p sets up its own
logging when LIBP2P_DEBUG is set.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import suppress
from copy import copy
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Literal, TextIO

import msgspec

from daemon.log_budget import ROUTINE, LogBudget
from protocol.status.figures import clean

# The last one has the worker's lines, and the output of tasks.
OURS = ("daemon", "protocol", "contracts", "simulator", "hypergpu")
# The terminal shows this much of a line. The file has the whole line.
MAX_LINE_CHARS = 4000
# Four days at least, or an hour with -v. One older file is kept, so the log stays below 8 MiB.
LOG_FILE_BYTES = 4 << 20
# What a line takes beside its message: date, level, logger and JSON.
LINE_BYTES = 100


class LogLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the log file. `at` is in unix seconds; `error` is the text of an exception."""

    at: float
    level: Literal["debug", "info", "warning", "error", "critical"]
    logger: str
    message: str
    error: str = ""


class JsonFormatter(logging.Formatter):
    """Formats a record as a `LogLine` in JSON."""

    def format(self, record: logging.LogRecord) -> str:
        return msgspec.json.encode(self.line(record)).decode()

    def line(self, record: logging.LogRecord) -> LogLine:
        """Return what a record says."""
        return LogLine(
            at=round(record.created, 3),
            # The levels of the standard library have these names.
            level=record.levelname.lower(),  # type: ignore[arg-type]
            logger=record.name,
            message=record.getMessage(),
            error=self.formatException(record.exc_info) if record.exc_info else "",
        )


def plain_line(line: LogLine) -> str:
    """Return a line for people: `12:04:09 warning  daemon.network  the message`.

    It is printable, even when a peer put control characters into the message.
    """
    clock = time.strftime("%H:%M:%S", time.localtime(line.at))
    text = f"{clock} {line.level:<8} {line.logger}  {line.message}"
    text = f"{text}\n{line.error}" if line.error else text
    return "\n".join(clean(part, MAX_LINE_CHARS) for part in text.split("\n"))


class PlainFormatter(JsonFormatter):
    """Formats a record as `plain_line` does."""

    def format(self, record: logging.LogRecord) -> str:
        return plain_line(self.line(record))


class _Forgiving(RotatingFileHandler):
    """Reports once that the disk refuses lines, instead of with a traceback for each line.

    stderr gets the same lines. `budget` bounds what is written; None writes everything.
    """

    _failing = False
    budget: LogBudget | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.budget is not None:
            size, is_error = len(record.getMessage()) + LINE_BYTES, record.levelno >= logging.ERROR
            if not self.budget.allows(size, is_error=is_error, now=time.monotonic()):
                return
            if note := self.budget.note():
                record = copy(record)
                record.msg, record.args = f"{note}{record.getMessage()}", ()
        self._failed = False
        super().emit(record)
        self._failing = self._failed

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self._failed = True
        if not self._failing:
            with suppress(OSError):
                print(
                    f"The log {self.baseFilename} cannot be written ({error.strerror}). Everything"
                    " else continues.",
                    file=sys.stderr,
                    flush=True,
                )


class _Terminal(logging.StreamHandler[TextIO]):
    """Drops lines that a closed terminal or a full disk refuses, instead of a traceback for each.

    The file gets the same lines.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def is_remarkable(record: logging.LogRecord) -> bool:
    """Whether a record tells more than that a round went as it should."""
    return not getattr(record, ROUTINE, False)


def set_up_logging(
    *,
    verbose: bool = False,
    quiet: bool = False,
    file: Path | None = None,
    stream: TextIO | None = None,
) -> None:
    """Send log records to stderr and, as JSON, to `file`. Replaces any earlier setup.

    The level is INFO for HyperGPU (`verbose`: DEBUG), and WARNING for libraries. With `quiet`,
    stderr gets only errors. Without `verbose`, the file leaves out rounds that go as they should
    and stays within a `LogBudget`. So does systemd's journal, which is a file too.
    """

    plain = _Terminal(stream or sys.stderr)
    plain.setFormatter(PlainFormatter())
    plain.setLevel(logging.ERROR if quiet else logging.NOTSET)
    handlers: list[logging.Handler] = [plain]
    if file is not None:
        machine = _Forgiving(
            file, maxBytes=LOG_FILE_BYTES, backupCount=1, encoding="utf-8", delay=True
        )
        machine.setFormatter(JsonFormatter())
        if not verbose:
            machine.budget = LogBudget(time.monotonic())
            machine.addFilter(is_remarkable)
            if os.environ.get("JOURNAL_STREAM"):
                plain.addFilter(is_remarkable)
        handlers.append(machine)
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    level = logging.DEBUG if verbose else logging.INFO
    for name in OURS:
        logging.getLogger(name).setLevel(level)
