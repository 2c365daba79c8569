"""Logging: lines for people on stderr, one JSON object a line in a bounded file for machines.

Set up once, by the composition root.

Call it after importing libp2p, which sets up logging of its own when LIBP2P_DEBUG is set.
"""

from __future__ import annotations

import logging
import sys
import time
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

import msgspec

from protocol.status.figures import clean

# The last is the worker and what tasks print.
OURS = ("daemon", "protocol", "contracts", "simulator", "hypergpu")
MAX_LINE_CHARS = 4000  # on a terminal; the file has all of it
# A day of a chatty node; with one older file kept the log stays below 8 MiB.
LOG_FILE_BYTES = 4 << 20


class JsonFormatter(logging.Formatter):
    """`{"at": unix seconds, "level", "logger", "message", "error"?}`, one line whatever the message
    holds.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class PlainFormatter(logging.Formatter):
    """`12:04:09 warning  daemon.network  what happened`: short, since a person reads it as it comes.

    Its lines are printable whatever a peer put into a message: it goes to a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock} {record.levelname.lower():<8} {record.name}  {record.getMessage()}"
        text = f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
        return "\n".join(clean(part, MAX_LINE_CHARS) for part in text.split("\n"))


class _Forgiving(RotatingFileHandler):
    """A disk that takes no line is said once each time it begins to refuse, instead of a traceback
    for each line: those are on stderr, too.
    """

    _failing = False

    def emit(self, record: logging.LogRecord) -> None:
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
                    f"The log {self.baseFilename} cannot be written ({error.strerror}); everything else goes on.",
                    file=sys.stderr,
                    flush=True,
                )


def set_up_logging(
    *,
    verbose: bool = False,
    quiet: bool = False,
    file: Path | None = None,
    stream: TextIO | None = None,
) -> None:
    """Send our records at INFO (`verbose`: DEBUG) and the libraries' at WARNING to stderr and, as
    JSON, to `file`.

    `quiet`: only errors to stderr.

    Replaces what was set up before, by us or by a library at import.
    """
    plain = logging.StreamHandler(stream or sys.stderr)
    plain.setFormatter(PlainFormatter())
    plain.setLevel(logging.ERROR if quiet else logging.NOTSET)
    handlers: list[logging.Handler] = [plain]
    if file is not None:
        machine = _Forgiving(
            file, maxBytes=LOG_FILE_BYTES, backupCount=1, encoding="utf-8", delay=True
        )
        machine.setFormatter(JsonFormatter())
        handlers.append(machine)
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    level = logging.DEBUG if verbose else logging.INFO
    for name in OURS:
        logging.getLogger(name).setLevel(level)
