"""`logs`: prints the log of a home as lines for people, and follows it."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from daemon.cli.invocation import Invocation, global_options, invocation_of
from daemon.home.layout import LOG_FILE
from daemon.logs import MAX_LINE_CHARS, LogLine, plain_line
from protocol.errors import UserError
from protocol.status.figures import clean

# The lines of a first look: about one screen.
FIRST_LINES = 40
MAX_LINES = 1_000_000
# Between two looks at a file that is followed. A person does not notice the difference.
POLL_S = 0.2
LEVELS = ("debug", "info", "warning", "error")


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Print new lines until Ctrl-C.")
@click.option(
    "--lines",
    "-n",
    "count",
    type=click.IntRange(0, MAX_LINES),
    metavar="COUNT",
    default=FIRST_LINES,
    show_default=True,
    help="Begin with the last COUNT lines.",
)
@click.option(
    "--level",
    type=click.Choice(LEVELS),
    default="debug",
    help="Print only lines of this level and above.",
)
@global_options(hidden=True)
@click.pass_context
def logs(context: click.Context, follow: bool, count: int, level: str) -> None:
    """Show the log of this node; -f follows it.

    The node does not have to run. With --json, each line is one JSON object, as in the file.
    """
    invocation = invocation_of(context)
    path = invocation.home / LOG_FILE
    try:
        _show(invocation, path, follow=follow, count=count, level=level)
    except FileNotFoundError:
        raise UserError(
            "NO_LOG",
            f"There is no log in {invocation.home}.",
            why="no node has started on this home yet, or --home names another home",
            fix="hypergpud start, or hypergpud logs --home PATH",
        ) from None
    except OSError as error:
        raise UserError(
            "LOG",
            f"Cannot read the log {path}.",
            why=error.strerror or str(error),
            fix="run this as the user who owns it",
        ) from None


def _show(invocation: Invocation, path: Path, *, follow: bool, count: int, level: str) -> None:
    least = _severity(level)
    older = path.with_name(f"{path.name}.1")
    kept: deque[bytes] = deque(maxlen=count)
    with path.open("rb") as stream:
        if older.exists():
            with older.open("rb") as before:
                kept.extend(line for line in before if _shows(line, least))
        kept.extend(line for line in stream if line.endswith(b"\n") and _shows(line, least))
        position = stream.tell()
    for line in kept:
        _print(invocation, line)
    if follow:
        for line in _new_lines(path, position):
            if _shows(line, least):
                _print(invocation, line)


def _severity(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _shows(line: bytes, least: int) -> bool:
    decoded = _decode(line)
    return decoded is None or _severity(decoded.level) >= least


def _decode(line: bytes) -> LogLine | None:
    """Decode a line of the log; None for a torn one, which only people are shown."""
    try:
        return msgspec.json.decode(line, type=LogLine)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _print(invocation: Invocation, line: bytes) -> None:
    decoded = _decode(line)
    text = line.decode(errors="replace").rstrip("\n")
    if decoded is not None:
        invocation.result(text if invocation.as_json else plain_line(decoded))
    elif not invocation.as_json:
        invocation.result(clean(text, MAX_LINE_CHARS))


def _new_lines(path: Path, position: int) -> Iterator[bytes]:
    """Yield lines behind `position`, also of the file that follows a rotation, without end."""
    stream = path.open("rb")
    try:
        stream.seek(position)
        torn = b""
        while True:
            read = stream.readline()
            if read.endswith(b"\n"):
                yield torn + read
                torn = b""
                continue
            torn += read
            if not read and _was_replaced(path, stream.fileno()):
                stream.close()
                stream, torn = path.open("rb"), b""
                continue
            sys.stdout.flush()
            time.sleep(POLL_S)
    finally:
        stream.close()


def _was_replaced(path: Path, handle: int) -> bool:
    """Return whether the name belongs to another file than the open one, as after a rotation."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(handle)
    return (named.st_dev, named.st_ino) != (held.st_dev, held.st_ino)
