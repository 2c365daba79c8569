"""The three standard streams of one call, made usable whatever the caller left of them.

A caller may close a stream (`>&-`), read one line of a pipe (`| head -1`), give a device that is
full (`> /dev/full`), or name a locale that cannot write what HyperGPU says. Rules, the same on
every patch version of Python:

* A closed stdin reads as empty. A closed stderr takes everything. A closed stdout refuses every
  write, so that no result is lost silently.
* Text that the encoding cannot carry is replaced, never raised.
* What a stream refuses at the end of the process changes no exit code: the interpreter would turn
  its own failed flush into 120.
"""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
from typing import Any, TextIO

UTF8 = "utf-8"
STREAM_NAMES = {1: "the standard output", 2: "the standard error"}
_HANDLER = "hypergpu"
_UTF8_MODE = "PYTHONUTF8"
# gnulib's stdopen does the same: a stream opened the wrong way round refuses each use, instead of
# handing its number to the next file.
_PLACEHOLDERS = ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY))
_STAND_INS = {
    "✓": "+",
    "✕": "x",
    "●": "*",
    "○": "o",
    "◔": "o",
    "·": "-",
    "–": "-",
    "≈": "~",
    "→": "->",
    "…": "...",
}
"""ASCII in the place of our own marks."""


def prepare_streams() -> None:
    """For the start of a process that is ours alone.

    Where the locale's encoding is not UTF-8 the process is replaced by one that uses it.

    Linux keeps names and arguments as bytes, and every file of ours is UTF-8: under any other
    encoding a path or a name with an accent could be neither opened nor shown.
    """
    if sys.getfilesystemencoding() != UTF8 and os.environ.get(_UTF8_MODE) != "1" and sys.executable:
        os.execve(sys.executable, sys.orig_argv, os.environ | {_UTF8_MODE: "1"})
    for number, way in _PLACEHOLDERS:
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number: those below it are open already.
            os.set_inheritable(os.open(os.devnull, way), True)
    sys.stdin = sys.stdin or open(0, encoding=UTF8, closefd=False)  # noqa: SIM115  # it stays open as long as the process
    sys.stdout = _writer(sys.stdout, 1)
    sys.stderr = _writer(sys.stderr, 2)


def settle_streams() -> None:
    """For the end of that process: what a stream still refuses to take is dropped, so that the
    interpreter's last flush succeeds.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _writer(stream: TextIO | None, number: int) -> TextIO:
    codecs.register_error(_HANDLER, _stand_in)
    encoding = stream.encoding if stream is not None else UTF8
    return io.TextIOWrapper(
        io.BufferedWriter(_Raw(number)), encoding, _HANDLER, line_buffering=os.isatty(number)
    )


class _Raw(io.FileIO):
    """A standard stream whose errors carry its name: its number alone could be that of any other
    file.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)

    def write(self, data: Any, /) -> int:
        try:
            # Another program may have made a shared pipe or terminal non-blocking: then a write may
            # take nothing, and waits.
            while (taken := super().write(data)) is None:
                select.select([], [self.fileno()], [])
            return taken
        except OSError as error:
            error.filename = STREAM_NAMES[self.fileno()]
            raise


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """For `codecs`: what is written in the place of what cannot be."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(_STAND_INS.get(letter, "?") for letter in lost), error.end
