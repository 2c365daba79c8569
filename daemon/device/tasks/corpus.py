"""Reads text that is already on the machine: the standard library's sources, or a folder.

Every machine with Python has the standard library, so a demo needs no download. Nodes with
different versions of Python have slightly different sources. Each node trains on its own copy.
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

# Enough for hours of a demo, and read in 30 ms. The whole library has 11 MB without its tests.
STDLIB_BYTES = 4 << 20
# The corpus is held in memory. A larger one needs a task of its own.
FOLDER_BYTES = 1 << 30
LEFT_OUT = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
    # These folders are not part of the library, or hold data for tests.
)
SEPARATOR = b"\n"

Bytes = npt.NDArray[np.uint8]


def _read(files: Iterable[Path], limit: int) -> Bytes:
    """Return the bytes of the files, one after another, cut at `limit`.

    Unreadable files are skipped.
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


def walk(folder: Path, suffix: str = "", left_out: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yield the files under `folder`, depth first, in the same order on every machine.

    The walk is lazy, so a reader that has enough stops it. Links are not followed: they could lead
    out of the folder, or in circles.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in left_out:
                yield from walk(Path(entry.path), suffix, left_out)
        elif entry.is_file(follow_symlinks=False) and entry.name.endswith(suffix):
            yield Path(entry.path)


def stdlib_sources(limit: int = STDLIB_BYTES) -> Bytes:
    """Return the standard library's `*.py` files, without tests and installed packages."""
    return _read(walk(Path(sysconfig.get_path("stdlib")), ".py", LEFT_OUT), limit)


def load_corpus(name: str, data_folders: Sequence[str], limit: int = 0) -> Bytes:
    """Load the corpus that a manifest names, as bytes of shape (count,).

    It is "stdlib", or a file or folder inside `data_folders`. A `limit` of 0 means the default.

    Raises `UserError("DATA")` when there is nothing to read.
    """
    if name == "stdlib":
        text = stdlib_sources(limit or STDLIB_BYTES)
    else:
        path = allowed_path(name, data_folders)
        text = _read([path] if path.is_file() else walk(path), limit or FOLDER_BYTES)
    if not text.size:
        raise UserError(
            "DATA", f"The corpus {name!r} is empty.", why="no file in it could be read", exit_code=2
        )
    return text
