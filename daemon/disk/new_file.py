"""Creates a whole file under a free name, and never replaces another file, on any file system.

    link(2)                        where hard links exist; fails where the name is in use
    renameat2(RENAME_NOREPLACE)    FAT, exFAT, SMB: no hard links, and the same guarantee
    open(O_EXCL)                   the rest (many FUSE file systems): create the name, then fill it

With the first two, a crash at any instant leaves no file or a whole file. With the third, a power
cut may leave a part of the file. An error removes that part.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from pathlib import Path

# fcntl.h: paths are relative to the working directory.
_AT_FDCWD = -100
# linux/fs.h
_RENAME_NOREPLACE = 1

# The errors of file systems whose directories cannot be synced.
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES)


def write_new(path: Path, data: bytes) -> bool:
    """Write a file with mode 0600 durably, unless one of that name exists.

    Returns whether this call made the file. Of two concurrent calls, exactly one returns True.
    Raises `OSError`; this call has then made no file of that name.
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
    """Create `path`, which must be free, and write all of `data`.

    Raises `OSError`, and then removes the file.
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
        # The caller needs the first error.
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def _fill_in_place(path: Path, data: bytes) -> bool:
    _fill(path, data)
    return True


def _move(draft: Path, path: Path) -> bool:
    """Give the draft its name. Returns False where the file system has no safe way to do so.

    Raises `FileExistsError`.
    """
    try:
        os.link(draft, path)
        return True
    except FileExistsError:
        raise
    except OSError:
        # EPERM on FAT, EOPNOTSUPP on SMB, ENOSYS on FUSE, and others. The next way reports its own
        # error.
        return _rename_unless_taken(draft, path)


def _rename_unless_taken(draft: Path, path: Path) -> bool:
    """Rename the draft unless the name is in use. Returns False where the system cannot do that.

    Raises `FileExistsError`.
    """
    # glibc has the function from version 2.28 on.
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
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
    """Make the name durable, where the file system supports it."""

    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)
