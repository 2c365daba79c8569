"""Putting a whole file under a name that is free, and never over another file, on every kind of
file system.

    link(2)                        where there are hard links: fails where the name is taken
    renameat2(RENAME_NOREPLACE)    FAT, exFAT, SMB: no hard links, and the same promise
    open(O_EXCL)                   what is left (many FUSE file systems): the name is ours, then it is filled

The first two make a file that is absent or whole after a crash at any instant. The third may leave
a part of it after a power cut; an error removes what it made.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from pathlib import Path

# fcntl.h: paths are relative to the working directory.
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1  # linux/fs.h

# The answers of file systems whose directories cannot be synced.
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES)


def write_new(path: Path, data: bytes) -> bool:
    """Write a private (0600) file durably, unless one of that name exists.

    Returns whether it was this call that made it.

    Exactly one of two calls at once returns True. Raises `OSError`; there is then no file of that
    name from this call.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    _fill(draft, data)
    try:
        made = _move(draft, path) or _fill_in_place(path, data)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    if made:
        _sync_directory(path.parent)
    return made


def _fill(path: Path, data: bytes) -> None:
    """Make `path`, which must be free, and write all of `data`.

    On an error it is removed. Raises `OSError`.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError:
        with suppress(OSError):  # the first error is the one to tell
            path.unlink(missing_ok=True)
        raise


def _fill_in_place(path: Path, data: bytes) -> bool:
    _fill(path, data)
    return True


def _move(draft: Path, path: Path) -> bool:
    """Give the whole draft its name.

    False where this file system can do so in no safe way. Raises `FileExistsError`.
    """
    try:
        os.link(draft, path)
        return True
    except FileExistsError:
        raise
    except OSError:
        # EPERM on FAT, EOPNOTSUPP on SMB, ENOSYS on FUSE, and others: whatever it is, the next way
        # has its own error.
        return _rename_unless_taken(draft, path)


def _rename_unless_taken(draft: Path, path: Path) -> bool:
    """rename(2) that fails where the name is taken.

    False where kernel or file system have none. Raises `FileExistsError`.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc 2.28
    if renameat2 is None:
        return False
    if (
        renameat2(_AT_FDCWD, os.fsencode(draft), _AT_FDCWD, os.fsencode(path), _RENAME_NOREPLACE)
        == 0
    ):
        return True
    if ctypes.get_errno() == errno.EEXIST:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    return False


def _sync_directory(directory: Path) -> None:
    """The name is durable too, where the file system has a way to make it so."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)
