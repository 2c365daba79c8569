"""Writes a file so that a crash at any instant leaves the whole old file or the whole new one.

`write_atomically` writes a draft beside the file, syncs the draft, renames it over the file, and
syncs the directory. The rename is atomic. Without the first sync, the new name may have no bytes
after a crash; without the second, the old file may come back (https://lwn.net/Articles/457667/).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from protocol.ports.disk import DiskFull

WriteStep = str
"""The next step: "write" (of a part), "sync", "rename", "sync_dir", "append", "cut" or "remove"."""

FaultHook = Callable[[WriteStep], None]
"""Called before each step. A test raises from it to simulate a power cut at that point."""

DRAFT_PREFIX = ".draft-"
# The size of one call to write(2). Linux writes 2 GB at most.
WRITE_BYTES = 64 << 20


def no_fault(_step: WriteStep) -> None:
    """Do nothing."""


def free_bytes(path: Path) -> int:
    """Return how many bytes an ordinary user may still write on the file system of `path`."""
    about = os.statvfs(path)
    return about.f_bavail * about.f_frsize


def disk_full(path: Path, needed: int, error: OSError | None = None) -> DiskFull:
    """Return the exception for a file system that refused to write `needed` bytes.

    The message names the free space where a lack of space may be the reason.
    """
    if error is not None and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFull(f"{path} cannot be written: {error.strerror or error}")
    try:
        free = f"{free_bytes(path.parent):,} bytes are free"
    except OSError as unknown:
        free = f"the free space is unknown ({unknown.strerror})"
    why = f": {error.strerror}" if error is not None and error.strerror else ""
    return DiskFull(f"{path} needs {needed:,} bytes, {free}{why}")


def write_all(handle: int, data: memoryview) -> None:
    """Write all of `data` without copying it."""
    for start in range(0, len(data), WRITE_BYTES):
        rest = data[start : start + WRITE_BYTES]
        while rest:
            rest = rest[os.write(handle, rest) :]


def sync_directory(directory: Path) -> None:
    """Make the directory's names durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_private_directory(directory: Path) -> None:
    """Make the directory and its missing parents with mode 0700, durably."""
    missing = []
    while not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for made in reversed(missing):
        made.mkdir(mode=0o700, exist_ok=True)
        sync_directory(made.parent)


def write_atomically(
    path: Path,
    parts: Sequence[memoryview],
    fault: FaultHook = no_fault,
    *,
    written_ns: int | None = None,
) -> int:
    """Write `parts`, one after the other, to `path` with mode 0600.

    `written_ns` is the file's date, where it is given. The file is durable on return. Returns its
    size in bytes.

    Raises `DiskFull` when the file system refuses. The old file is then untouched, and no draft is
    left.
    """
    size = sum(part.nbytes for part in parts)
    draft = path.with_name(DRAFT_PREFIX + path.name)
    try:
        make_private_directory(path.parent)
        if free_bytes(path.parent) < size:
            # Refuse before other programs lose the last free byte.
            raise disk_full(path, size)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            for part in parts:
                fault("write")
                write_all(handle, part.cast("B"))
            if written_ns is not None:
                os.utime(handle, ns=(written_ns, written_ns))
            fault("sync")
            os.fsync(handle)
        finally:
            os.close(handle)
        fault("rename")
        draft.rename(path)
        fault("sync_dir")
        sync_directory(path.parent)
    except OSError as error:
        full = disk_full(path, size, error)
        # The next start clears a draft that cannot be removed now.
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise full from error
    return size


def set_aside(path: Path) -> Path:
    """Rename a damaged file, so that nothing reads or overwrites it. Returns its new path.

    Where the file system refuses the rename, that is the old path.
    """
    taken = {path.name, *(other.name for other in path.parent.glob(f"{path.name}.damaged*"))}
    name = next(
        name
        for i in count(1)
        if (name := f"{path.name}.damaged{f'-{i}' if i > 1 else ''}") not in taken
    )
    aside = path.with_name(name)
    try:
        path.rename(aside)
    except OSError:
        return path
    return aside


def remove_drafts(directory: Path) -> None:
    """Remove the drafts that broken-off writes have left.

    Only the process that holds the home may call this: it removes every writer's drafts.
    """
    # Drafts are never read, so a failure does not matter.

    with suppress(OSError):
        for draft in directory.glob(DRAFT_PREFIX + "*"):
            draft.unlink(missing_ok=True)
