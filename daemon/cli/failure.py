"""Unforeseen errors of a command as messages: what happened, why, and what to type.

A volunteer's terminal shows no traceback. For a bug of ours, the traceback goes to the home's log,
where a report can copy it. It goes to stderr with --verbose, or without a home.
"""

from __future__ import annotations

import errno
import time
import traceback
from pathlib import Path

import msgspec

from daemon.cli.invocation import output_error
from daemon.cli.terminal.streams import STREAM_NAMES
from daemon.home.layout import FULL, LOG_FILE
from protocol.errors import OurFault, UserError

_FIXES = {
    **dict.fromkeys(FULL, "free some disk space, then try again"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files: ulimit -n 4096"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "run this command as the owner of that file"),
    **dict.fromkeys((errno.ENOMEM, errno.EAGAIN), "close other programs, then try again"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR), "check the path"),
    errno.EROFS: "name a folder that is not read-only",
}
# A group of exceptions is shown up to here.
MAX_CAUSES = 8


def explained(error: BaseException, home: Path | None, *, verbose: bool) -> UserError:
    """Return the error as a message for the user."""
    leaves = leaves_of(error)
    for leaf in leaves:
        if isinstance(leaf, UserError):
            return leaf
    system = next((leaf for leaf in leaves if isinstance(leaf, OSError)), None)
    if system is not None:
        return _refused_by_system(system)
    missing = next((leaf for leaf in leaves if isinstance(leaf, ModuleNotFoundError)), None)
    if missing is not None:
        return UserError(
            "INSTALLATION",
            "This installation of HyperGPU is incomplete.",
            why=str(missing),
            fix="install it again: make setup, or pip install hypergpu",
        )
    if any(isinstance(leaf, MemoryError) for leaf in leaves):
        return UserError(
            "MEMORY",
            "This machine has too little free memory.",
            fix="close other programs, or choose smaller options",
        )
    return _bug(error, leaves, home, verbose=verbose)


def leaves_of(error: BaseException) -> list[BaseException]:
    """Return the exceptions in a group and its subgroups; else the exception itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for part in error.exceptions for leaf in leaves_of(part)]


def _refused_by_system(error: OSError) -> UserError:
    if error.filename == STREAM_NAMES[1]:
        return output_error(error)
    about = f"{error.filename}: " if error.filename is not None else ""
    return UserError(
        "SYSTEM",
        "The operating system refused a call of this command.",
        why=f"{about}{error.strerror or error}",
        fix=_FIXES.get(error.errno or 0, "correct the cause, then try again"),
    )


def _bug(
    error: BaseException, leaves: list[BaseException], home: Path | None, *, verbose: bool
) -> UserError:
    causes = "; ".join(
        f"{type(leaf).__name__}: {leaf}{_place(leaf)}" for leaf in leaves[:MAX_CAUSES]
    )
    told = "".join(traceback.format_exception(error))
    kept = None if verbose else _into_log(home, told)
    return UserError(
        "FAULT",
        "hypergpud failed because of a bug."
        if not isinstance(error, OurFault)
        else "This node broke one of its own rules, which is a bug.",
        why=causes if kept else f"{causes}\n{told}",
        fix=f"report it with the end of {kept}" if kept else "report it with the text above",
    )


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


def _into_log(home: Path | None, text: str) -> Path | None:
    """Append the text to the home's log and return its path; None where that fails."""
    if home is None or not home.is_dir():
        return None
    path = home / LOG_FILE
    line = {
        "at": round(time.time(), 3),
        "level": "critical",
        "logger": __name__,
        "message": "a command failed because of a bug",
        "error": text.encode("utf-8", "replace").decode(),
    }
    try:
        with path.open("ab") as log:
            log.write(msgspec.json.encode(line) + b"\n")
    except OSError:
        return None
    return path
