"""Calls the code of a task's author, and classifies its failures. Worker process only.

A task may raise any exception, and may call `sys.exit`. This module turns all of that into one of
three exceptions:

    SampleFault  this batch cannot be used: it is skipped and counted
    TaskFault    a person must change the task, its data or the run
    MemoryShort  an allocator refused memory, which may pass by itself

All carry the file and the line in the author's code, and the traceback.
"""

from __future__ import annotations

import errno
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from protocol.errors import UserError

# The limits of a log line. A traceback's end says what happened, so its beginning is cut.
MAX_TRACE_CHARS = 6000
MAX_ERROR_CHARS = 300
_WORKER = Path(__file__).resolve().parent.parent
_TASKS = _WORKER / "tasks"
_NOT_TASKS = frozenset({"catalog.py", "task.py", "source.py"})
_STDLIB = Path(sysconfig.get_path("stdlib")).resolve()
_INSTALLED = frozenset({"site-packages", "dist-packages"})


OUT_OF_MEMORY = "The worker ran out of memory"
# The messages of torch's allocators that raise a plain `RuntimeError`.
_REFUSALS = ("can't allocate memory", "out of memory", "ALLOC_FAILED")


class AuthorFault(Exception):
    """Base of `SampleFault` and `TaskFault`.

    `what` is a sentence without its full stop. `trace` is empty where nothing was raised.
    """

    def __init__(self, what: str, *, fix: str = "", trace: str = "") -> None:
        super().__init__(what)
        self.what, self.fix, self.trace = what, fix, trace


class SampleFault(AuthorFault):
    """One batch cannot be used."""


class TaskFault(AuthorFault):
    """A person must fix something."""


class MemoryShort(Exception):
    """The machine or its GPU ran out of memory. `what` is a sentence without its full stop."""

    def __init__(self, what: str, trace: str) -> None:
        super().__init__(what)
        self.what, self.trace = what, trace


def memory_short(call: str, error: BaseException) -> MemoryShort | None:
    """Return what to raise for an `error` of `call` if memory was short, else None."""
    if not _is_out_of_memory(error):
        return None
    said = what_failed(call, error).removeprefix("Task failed in ")
    return MemoryShort(f"{OUT_OF_MEMORY} in {said}", trace_of(error))


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether the error, or one of its causes, is a lack of memory.

    The node calls this too, and has not imported torch.
    """
    torch = sys.modules.get("torch")
    while error is not None:
        if isinstance(error, MemoryError) or (
            isinstance(error, OSError) and error.errno == errno.ENOMEM
        ):
            return True
        if torch is not None and isinstance(error, torch.OutOfMemoryError):
            return True
        if isinstance(error, RuntimeError) and any(words in str(error) for words in _REFUSALS):
            return True
        error = error.__cause__
    return False


@contextmanager
def author_code(
    call: str, kind: type[AuthorFault] = TaskFault, passing: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn an exception of the author's `call`, such as "batch()", into a `kind`.

    A lack of memory becomes `MemoryShort`. These classes' own exceptions, `UserError` and `passing`
    pass unchanged.
    """
    unchanged: tuple[type[Exception], ...] = (AuthorFault, MemoryShort, UserError, *passing)
    try:
        yield
    except unchanged:
        raise
    except SystemExit as error:
        # It would end the worker without a message, and no batch causes it.
        raise TaskFault(
            what_failed(call, error),
            fix="raise an exception where something is wrong",
            trace=trace_of(error),
        ) from error
    except Exception as error:
        # The error boundary to the author's code: any exception is that code's.
        if (short := memory_short(call, error)) is not None:
            raise short from error
        raise kind(what_failed(call, error), trace=trace_of(error)) from error


def what_failed(call: str, error: BaseException) -> str:
    """Describe a failure: "Task failed in wine.py:34 batch(): KeyError: 'text'"."""
    frame = _own_frame(error)
    said = "".join(traceback.format_exception_only(error)).strip().splitlines()
    words = (said[-1] if said else type(error).__name__)[:MAX_ERROR_CHARS]
    if isinstance(error, SyntaxError):
        words = f"SyntaxError: {error.msg}"
        if error.filename:
            return f"Task failed in {Path(error.filename).name}:{error.lineno} {call}: {words}"
    if isinstance(error, SystemExit):
        words = f"it called sys.exit({error.code!r})"
    if frame is None:
        return f"Task failed in {call}: {words}"
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    inside = (
        ""
        if call.startswith(f"{frame.name}(") or frame.name == "<module>"
        else f" in {frame.name}()"
    )
    return f"Task failed in {place} {call}{inside}: {words}"


def place_of(function: Callable[..., object]) -> str:
    """Return where a method of the author begins: "wine.py:34 loss()"."""
    code = getattr(function, "__code__", None) or getattr(
        getattr(function, "__func__", None), "__code__", None
    )
    if code is None:
        return f"{getattr(function, '__name__', 'it')}()"
    return f"{Path(code.co_filename).name}:{code.co_firstlineno} {code.co_name}()"


def trace_of(error: BaseException) -> str:
    """Return the traceback as Python prints it, without our frames and those of imports.

    A traceback that is too long loses its beginning.
    """
    told = traceback.TracebackException.from_exception(error)
    part: traceback.TracebackException | None = told
    while part is not None:
        kept = [
            frame
            for frame in part.stack
            if not _is_ours(frame.filename) and not _is_import(frame.filename)
        ]
        # A SyntaxError names its place itself.
        if kept or isinstance(error, SyntaxError):
            part.stack = traceback.StackSummary.from_list(kept)
        part = part.__cause__ or part.__context__
    text = "".join(told.format()).rstrip()
    return text if len(text) <= MAX_TRACE_CHARS else f"... {text[-MAX_TRACE_CHARS:]}"


def _own_frame(error: BaseException) -> traceback.FrameSummary | None:
    """Return the innermost frame in the author's code, or None."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame for frame in frames if not _is_ours(frame.filename) and not is_library(frame.filename)
    ]
    return own[-1] if own else None


def _is_ours(filename: str) -> bool:
    path = Path(filename)
    return path.is_relative_to(_WORKER) and (path.parent != _TASKS or path.name in _NOT_TASKS)


def _is_import(filename: str) -> bool:
    return "importlib" in filename and (
        filename.startswith("<") or Path(filename).is_relative_to(_STDLIB)
    )


def is_library(filename: str) -> bool:
    """Return whether a file belongs to Python or to an installed package."""
    path = Path(filename)
    return (
        filename.startswith("<") or path.is_relative_to(_STDLIB) or bool(_INSTALLED & {*path.parts})
    )
