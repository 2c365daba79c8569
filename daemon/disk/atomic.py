"""Writing a file so that a crash at any instant leaves the old one or the new one, whole.

Write a draft beside it, fsync the draft, rename it over the old one, fsync the directory: rename is
atomic, but without the first fsync the new name may come back with no bytes behind it, and without
the second the old name may come back (https://lwn.net/Articles/457667/).
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
"""What is about to happen: "write" (each part), "sync", "rename", "sync_dir", "append", "cut" or "remove"."""

FaultHook = Callable[[WriteStep], None]
"""Called before each step; a test raises from it, and nothing after that point happens, as with a power cut."""

DRAFT_PREFIX = ".draft-"
# One call's worth; Linux itself stops at 2 GB.
WRITE_BYTES = 64 << 20


def no_fault(_step: WriteStep) -> None:
    """The world as it should be."""


def free_bytes(path: Path) -> int:
    """What an ordinary user may still write where `path` is."""
    about = os.statvfs(path)
    return about.f_bavail * about.f_frsize


def disk_full(path: Path, needed: int, error: OSError | None = None) -> DiskFull:
    """The exception for a medium that did not take `needed` bytes; how many are free is said where
    that may be why.
    """
    if error is not None and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFull(f"{path} cannot be written: {error.strerror or error}")
    try:
        free = f"{free_bytes(path.parent):,} bytes are free"
    except OSError as unknown:
        free = f"what is free cannot be told ({unknown.strerror})"
    why = f": {error.strerror}" if error is not None and error.strerror else ""
    return DiskFull(f"{path} needs {needed:,} bytes, {free}{why}")


def write_all(handle: int, data: memoryview) -> None:
    """All of `data`, in as many writes as it takes; no copy."""
    for start in range(0, len(data), WRITE_BYTES):
        rest = data[start : start + WRITE_BYTES]
        while rest:
            rest = rest[os.write(handle, rest) :]


def sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_private_directory(directory: Path) -> None:
    """The directory and what is missing above it, 0700, durable."""
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
    """Put `parts`, one after the other, at `path` (0600), dated `written_ns` where given.

    Durable on return; returns the size in bytes.

    Raises `DiskFull` when the medium does not take it; the old file is then untouched and no draft
    is left.
    """
    size = sum(part.nbytes for part in parts)
    draft = path.with_name(DRAFT_PREFIX + path.name)
    try:
        make_private_directory(path.parent)
        if free_bytes(path.parent) < size:
            # Before the last free byte is taken from everybody else.
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
        # A medium that refuses everything: the next start clears it.
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise full from error
    return size


def set_aside(path: Path) -> Path:
    """Give a file another name beside its own, so that nothing reads it and nothing is written over
    it.

    Returns where it is now.

    Where the medium takes no change, that is where it was.
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
    """What writes that never ended have left.

    Only for whoever holds the home: another writer's draft would go too.
    """
    # Nothing there, or nothing that can be changed: a draft is never read.
    with suppress(OSError):
        for draft in directory.glob(DRAFT_PREFIX + "*"):
            draft.unlink(missing_ok=True)
