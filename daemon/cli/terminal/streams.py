"""Makes the three standard streams of a process usable in every environment.

A caller may close a stream (`>&-`), read one line of a pipe (`| head -1`), redirect to a full
device (`> /dev/full`), or choose a locale that cannot encode our text. The rules are the same on
every patch version of Python:

* A closed stdin reads as empty. A closed stderr discards what is written. A closed stdout refuses
  every write, so that no result is lost silently.
* Text that the encoding cannot carry is replaced, and raises nothing.
* A write that fails at the end of the process changes no exit code. The interpreter alone would
  turn its failed flush into 120.
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
# A placeholder is opened the wrong way round, so that each use of it fails. Without it, the next
# file that is opened would get the number of the closed stream. gnulib's stdopen does the same.
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
"""ASCII replacements for our own marks."""


def prepare_streams() -> None:
    """Prepare the streams at the start of a process.

    Where the locale's encoding is not UTF-8, this replaces the process by one in UTF-8 mode. Linux
    keeps names and arguments as bytes, and every file of ours is UTF-8. Under another encoding a
    path with an accent could be neither opened nor shown.
    """
    if sys.getfilesystemencoding() != UTF8 and os.environ.get(_UTF8_MODE) != "1" and sys.executable:
        os.execve(sys.executable, sys.orig_argv, os.environ | {_UTF8_MODE: "1"})
    for number, way in _PLACEHOLDERS:
        try:
            os.fstat(number)
        except OSError:
            # `open` returns the lowest free number, which is this one: lower ones are open.
            os.set_inheritable(os.open(os.devnull, way), True)
    # The file stays open as long as the process.
    sys.stdin = sys.stdin or open(0, encoding=UTF8, closefd=False)  # noqa: SIM115
    sys.stdout = _writer(sys.stdout, 1)
    sys.stderr = _writer(sys.stderr, 2)


def settle_streams() -> None:
    """Flush the streams at the end of a process, and drop what they refuse.

    The interpreter's own last flush then succeeds.
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
    """A standard stream whose errors carry the stream's name.

    With its number alone, a message could not tell it from another file.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)

    def write(self, data: Any, /) -> int:
        try:
            # Another program may have made a shared pipe or terminal non-blocking. A write then
            # writes nothing and returns None, so this waits until the stream is writable.
            while (taken := super().write(data)) is None:
                select.select([], [self.fileno()], [])
            return taken
        except OSError as error:
            error.filename = STREAM_NAMES[self.fileno()]
            raise


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """Error handler for `codecs`: replaces what the encoding cannot carry."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(_STAND_INS.get(letter, "?") for letter in lost), error.end
