"""Allows one daemon per home, by an flock on a file of the home.

The kernel releases an flock however its holder ends, so there are no stale locks. Some network file
systems (sshfs, some SMB and NFS mounts) do not carry the lock to other machines, and some file
systems have no locks. The holder therefore writes its name into the file, and touches the file
every `TOUCH_S` (`home_watcher.py`). A file that another machine touches is held.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import msgspec

from daemon.home.layout import LOCK_FILE, unusable_home
from protocol.errors import UserError

# Between two touches of the file by its holder.
TOUCH_S = 5.0
# How long a start waits for a touch when the file names another machine: two periods, and the 3 s
# for which NFS may show an old date.
LISTEN_S = 2 * TOUCH_S + 3.0
POLL_S = 0.25
# A file that nobody touched for this long is left from a crash or a backup. The machines' clocks
# do not differ by a day.
OLD_S = 24 * 3600.0
MOST_BYTES = 256
_NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class LockHolder(msgspec.Struct, frozen=True, kw_only=True):
    """The process that holds a home, its machine's name, and its boot.

    Files of earlier versions have no machine and no boot.
    """

    pid: int
    host: str = ""
    boot: str = ""

    @property
    def here(self) -> bool:
        """Whether the process runs on this kernel."""
        return not self.boot or self.boot == boot_id()

    def __str__(self) -> str:
        return f"process {self.pid or 'unknown'}" + (
            "" if self.here else f" on the machine {self.host}"
        )


def boot_id() -> str:
    """Return an id of this boot of this machine.

    Containers on one machine share the id, as they share the kernel's locks.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def own_mark() -> bytes:
    """Return what the holder writes into the file.

    It never changes while the process runs, although DHCP may rename the machine.
    """
    return _mark_of(os.getpid())


@cache
def _mark_of(pid: int) -> bytes:
    return f"{pid}\n{socket.gethostname()[:64]}\n{boot_id()}\n".encode()


@contextmanager
def home_lock(home: Path, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold the home for this process while the block runs.

    Raises:
        UserError: "ALREADY_RUNNING", which names the holder, or "HOME" for a home that is not
            writable.
    """
    path = home / LOCK_FILE
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable_home(home, error) from None
    try:
        try:
            if not acquire(handle) or _touched_elsewhere(path, _read(handle), say):
                raise _running(home, _read(handle))
            write_mark(handle)
        except OSError as error:
            raise unusable_home(home, error) from None
        try:
            yield
        finally:
            # If this fails, the next start on another machine waits for `LISTEN_S`.
            with suppress(OSError):
                release(handle)
    finally:
        # This releases the lock. The file stays: otherwise two processes could lock two files of
        # this name.
        os.close(handle)


def acquire(handle: int) -> bool:
    """Acquire the kernel's lock on the open file. Returns False where another process has it.

    Where the file system has no locks, a running process of this boot in the file holds it.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
        known = _read(handle)
        return not (
            known.here and known.pid not in (0, os.getpid()) and Path(f"/proc/{known.pid}").exists()
        )
    return True


def write_mark(handle: int) -> None:
    """Write into the file that this process holds it."""
    os.ftruncate(handle, 0)
    os.pwrite(handle, own_mark(), 0)


def release(handle: int) -> None:
    """Empty the file, so that the next start on another machine need not wait."""
    if os.pread(handle, MOST_BYTES, 0) == own_mark():
        os.ftruncate(handle, 0)


def lock_holder(home: Path) -> int | None:
    """Return the id of the process that holds the home, or None. Never waits."""
    held = find_holder(home)
    return held.pid if held else None


def find_holder(home: Path) -> LockHolder | None:
    """Return the holder of the home under the kernel's lock, or None. Never waits."""
    try:
        handle = os.open(home / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(handle)
        except OSError as error:
            known = _read(handle)
            alive = (
                error.errno in _NO_FLOCK
                and known.here
                and known.pid
                and Path(f"/proc/{known.pid}").exists()
            )
            return known if alive else None
        return None
    finally:
        os.close(handle)


def _read(handle: int) -> LockHolder:
    pid, host, boot, *_ = (
        *os.pread(handle, MOST_BYTES, 0).decode("utf-8", "replace").split("\n"),
        "",
        "",
        "",
    )
    return LockHolder(pid=int(pid) if pid.isascii() and pid.isdigit() else 0, host=host, boot=boot)


def _touched_elsewhere(path: Path, before: LockHolder, say: Callable[[str], None]) -> bool:
    """Return whether another machine, which the file names, still touches the file.

    Waits up to `LISTEN_S`.
    """
    if before.here:
        return False
    first_ns = _touched_ns(path)
    if time.time() - first_ns / 1e9 > OLD_S:
        return False
    say(
        f"This home was in use on {before.host}, or before a restart of this machine. Checking for"
        f" {LISTEN_S:.0f} s whether it is still in use."
    )
    deadline = time.monotonic() + LISTEN_S
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        if _touched_ns(path) != first_ns:
            return True
    return False


def _touched_ns(path: Path) -> int:
    """Return the date of the file in nanoseconds. Opening the file makes NFS ask its server."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.fstat(handle).st_mtime_ns
    finally:
        os.close(handle)


def _running(home: Path, by: LockHolder) -> UserError:
    stop = f"hypergpud stop --home {home}" + ("" if by.here else f" on {by.host}")
    return UserError(
        "ALREADY_RUNNING",
        f"A daemon already runs on {home} ({by}).",
        why="two daemons with one key would contradict each other in the swarm",
        fix=f"{stop}   (or start this one on a home of its own: hypergpud start --home OTHER)",
    )
