"""Text to train on that is already on the machine: the standard library's own sources, or a folder
of files.

The standard library is what every machine with Python has, so a demo needs no download. Nodes with
different Python versions have slightly different sources: each draws from its own copy, and the
model learns from both.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from daemon.device.tasks.files import allowed_path
from protocol.errors import UserError

# Enough for hours of a demo, read in 30 ms; the whole library has about 11 MB without its tests.
STDLIB_BYTES = 4 << 20
# Held in memory as bytes; a corpus above that wants a task of its own.
FOLDER_BYTES = 1 << 30
LEFT_OUT = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
    # Not the library itself, or data for tests.
)
SEPARATOR = b"\n"

Bytes = npt.NDArray[np.uint8]


def _read(files: Iterable[Path], limit: int) -> Bytes:
    """The files' bytes one after another, cut at `limit`.

    A file that cannot be read is passed over.
    """
    parts: list[bytes] = []
    room = limit
    for file in files:
        if room <= 0:
            break
        try:
            with file.open("rb") as source:
                part = source.read(room)
        except OSError:
            continue
        parts += [part, SEPARATOR]
        room -= len(part) + len(SEPARATOR)
    return np.frombuffer(b"".join(parts)[:limit], dtype=np.uint8)


def _walk(folder: Path, suffix: str = "", left_out: frozenset[str] = frozenset()) -> Iterator[Path]:
    """The files under `folder`, depth first by name: one order on every machine.

    Lazy, so that a reader that has enough stops the walk.

    Links are not followed: they could lead out of the folder, or in circles.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in left_out:
                yield from _walk(Path(entry.path), suffix, left_out)
        elif entry.is_file(follow_symlinks=False) and entry.name.endswith(suffix):
            yield Path(entry.path)


def stdlib_sources(limit: int = STDLIB_BYTES) -> Bytes:
    """The running Python's `*.py` files in order of their path, without tests and without what was
    installed beside them.
    """
    return _read(_walk(Path(sysconfig.get_path("stdlib")), ".py", LEFT_OUT), limit)


def load_corpus(name: str, data_folders: Sequence[str], limit: int = 0) -> Bytes:
    """The corpus a manifest names, shape (bytes,): "stdlib", or a file or folder inside
    `data_folders`.

    `limit` 0 stands for the usual one.

    Raises `UserError("DATA")` when there is nothing to read.
    """
    if name == "stdlib":
        text = stdlib_sources(limit or STDLIB_BYTES)
    else:
        path = allowed_path(name, data_folders)
        text = _read([path] if path.is_file() else _walk(path), limit or FOLDER_BYTES)
    if not text.size:
        raise UserError(
            "DATA", f"The corpus {name!r} is empty.", why="no file in it could be read", exit_code=2
        )
    return text
