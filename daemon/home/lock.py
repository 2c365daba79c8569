"""One daemon per home: an flock that the kernel releases however its holder ends, so a stale one
cannot exist.

An flock does not reach every other machine that uses the same file system (sshfs, some SMB and NFS
mounts), and some file systems have none. The holder therefore writes who it is into the file, and
touches the file every `BEAT_S` (`home_watch.py`). A file that another machine touches is held.
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

BEAT_S = 5.0  # between two touches of the holder's file
# How long a start waits that finds the name of another machine: two beats, and the 3 s for which
# NFS may show an old date.
LISTEN_S = 2 * BEAT_S + 3.0
POLL_S = 0.25
# A file that was touched longer ago is a crash's or a backup's, whatever the machines' clocks say.
OLD_S = 24 * 3600.0
MOST_BYTES = 256
_NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class LockHolder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a home: a process, its machine's name, and the boot in which the kernel's locks
    hold. The last two are empty in old files."""

    pid: int
    host: str = ""
    boot: str = ""

    @property
    def here(self) -> bool:
        """Whether the process is under this kernel."""
        return not self.boot or self.boot == boot_id()

    def __str__(self) -> str:
        return f"process {self.pid or 'unknown'}" + (
            "" if self.here else f" on the machine {self.host}"
        )


def boot_id() -> str:
    """What tells this boot of this machine from every other; containers of one machine share it,
    and the kernel's locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def own_mark() -> bytes:
    """What the holder writes into the file.

    The same for the life of the process: a machine gets another name while it runs, by DHCP for
    one.
    """
    return _mark_of(os.getpid())


@cache
def _mark_of(pid: int) -> bytes:
    return f"{pid}\n{socket.gethostname()[:64]}\n{boot_id()}\n".encode()


@contextmanager
def home_lock(home: Path, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold the home for this process.

    Raises `UserError`: "ALREADY_RUNNING", which names the holder, or "HOME" where nothing can be
    written.
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
            # A medium that refuses this makes the next start on another machine listen for a while.
            with suppress(OSError):
                release(handle)
    finally:
        # Releases. The file stays: removing it would let two processes lock two files of one name.
        os.close(handle)


def acquire(handle: int) -> bool:
    """Take the kernel's lock on the open file; False where another process has it.

    Without locks a process of this boot counts as its holder.
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
    """Say in the file who holds it."""
    os.ftruncate(handle, 0)
    os.pwrite(handle, own_mark(), 0)


def release(handle: int) -> None:
    """Say that nobody holds it any more, so that the next start on another machine need not listen
    for a while."""
    if os.pread(handle, MOST_BYTES, 0) == own_mark():
        os.ftruncate(handle, 0)


def lock_holder(home: Path) -> int | None:
    """The process that holds the home, or None when nobody does. Never waits."""
    held = find_holder(home)
    return held.pid if held else None


def find_holder(home: Path) -> LockHolder | None:
    """Who holds the home under the kernel's lock; None when nobody does. Never waits."""
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
    """Whether another machine, named in the file, still touches the file.

    Waits up to `LISTEN_S`, after a crash of that machine or of this one.
    """
    if before.here:
        return False
    first_ns = _touched_ns(path)
    if time.time() - first_ns / 1e9 > OLD_S:
        return False
    say(
        f"This home was in use on {before.host}, or before a restart of this machine. Looking for {LISTEN_S:.0f} s whether it still is."
    )
    deadline = time.monotonic() + LISTEN_S
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        if _touched_ns(path) != first_ns:
            return True
    return False


def _touched_ns(path: Path) -> int:
    """The date as the file system's server has it: opening a file makes NFS ask."""
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
        fix=f"{stop}   (or give the second one its own: hypergpud start --home OTHER)",
    )
