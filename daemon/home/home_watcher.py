"""Watches the home of a running node: its directory, its lock and its key.

Another program can remove, move, replace or unmount the home. The node then ends with one sentence,
because writing would make a new home without a key and a lock. Where only the lock or the key
disappeared, as after a cleaner of old files, the watcher makes the file again.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio

from daemon.disk.new_file import write_new
from daemon.home.layout import KEY_FILE, LOCK_FILE, unusable_home
from daemon.home.lock import TOUCH_S, acquire, own_mark, write_mark
from daemon.home.pinned_directory import identity
from daemon.system.offload import in_abandonable_thread
from protocol.errors import UserError

# A look is three calls to stat(2).
LOOK_S = 1.0
# A network's file system may fail for a moment. This many failures in a row mean a lost home.
MAX_FAILURES = 3
MARK_BYTES = 256

_log = logging.getLogger(__name__)


class HomeWatcher:
    """Watches one node's home. The caller holds the home's lock, and calls `close`."""

    def __init__(self, home: Path, seed: bytes) -> None:
        """Open the home. `seed` is the node's key. Raises `OSError` for an unreadable home."""
        self._home, self._seed = home, seed
        # systemd-tmpfiles does not clean a directory that a process holds with flock(2).
        self._directory = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with suppress(OSError):
            fcntl.flock(self._directory, fcntl.LOCK_SH | fcntl.LOCK_NB)
        self._id = identity(os.fstat(self._directory))
        self._lock = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
        self._failures = 0
        # When the lock was touched last.
        self._touched_s = 0.0
        # Whether the lock names this process. A full disk may refuse that.
        self._marked = True

    def close(self) -> None:
        """Close the files of the home."""
        os.close(self._lock)
        os.close(self._directory)

    def look(self, now: float) -> UserError | None:
        """Check the home once, restore a missing lock or key, and touch the lock when it is due.

        Returns why the node must end, or None. `now` is monotonic, in seconds.
        """
        try:
            found = identity(os.stat(self._home))
        except FileNotFoundError:
            return self._gone()
        except OSError as error:
            self._failures += 1
            if self._failures < MAX_FAILURES:
                return None
            return _lost(
                self._home,
                f"can no longer be read: {error.strerror}",
                "make it readable, then start the node again",
            )
        self._failures = 0
        if found != self._id:
            return _lost(
                self._home,
                "is now another directory",
                "find out what replaced or unmounted it, then:"
                f" hypergpud start --home {self._home}",
            )
        try:
            return self._check_lock(now) or self._check_key()
        except OSError as error:
            # The file system is full or read-only, which the disk port reports.
            _log.debug("The home's lock or key cannot be checked: %s", error)
            return None

    def _gone(self) -> UserError:
        where = os.readlink(f"/proc/self/fd/{self._directory}")
        if where.endswith(" (deleted)"):
            fix = (
                "put a backup there to keep this node's key and work, or begin with a new key:"
                " hypergpud start"
            )
            return _lost(self._home, "was removed", fix)
        return _lost(self._home, f"was moved to {where}", f"hypergpud start --home {where}")

    def _check_lock(self, now: float) -> UserError | None:
        path = self._home / LOCK_FILE
        try:
            known = identity(os.stat(path)) == identity(os.fstat(self._lock))
        except FileNotFoundError:
            return self._restore_lock(path)
        if (
            known
            and not self._marked
            and own_mark().startswith(os.pread(self._lock, MARK_BYTES, 0))
        ):
            self._mark()
        if not known or os.pread(self._lock, MARK_BYTES, 0) != own_mark():
            return _lost(self._home, "was taken by another process", f"see who uses it, in {path}")
        if now - self._touched_s >= TOUCH_S:
            os.utime(self._lock)
            self._touched_s = now
        return None

    def _restore_lock(self, path: Path) -> UserError | None:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not acquire(handle):
            os.close(handle)
            return _lost(self._home, "was taken by another process", f"see who uses it, in {path}")
        os.close(self._lock)
        # The lock is acquired, even where a full disk refuses the mark. The next look writes it.
        self._lock, self._marked = handle, False
        _log.warning(
            "%s was removed and is made again. Exclude this directory from cleaners of old files",
            path,
        )
        self._mark()
        return None

    def _mark(self) -> None:
        write_mark(self._lock)
        self._marked = True

    def _check_key(self) -> UserError | None:
        path = self._home / KEY_FILE
        if not path.exists() and write_new(path, self._seed):
            _log.warning(
                "%s was removed and is written again. To give the home a new key, stop the node"
                " first",
                path,
            )
        return None


async def watch_home(home: Path, seed: bytes, forget: Callable[[UserError], None]) -> None:
    """Watch the home until cancelled.

    When the home is lost, `forget` is called with the reason: the node must write nothing there
    any more. Then raises `UserError("HOME_LOST")`.

    Raises `UserError("HOME")` where the home or its lock cannot be read at the start.
    """
    try:
        watch = HomeWatcher(home, seed)
    except OSError as error:
        raise unusable_home(home, error) from None
    try:
        while True:
            await trio.sleep(LOOK_S)
            # A look at a network's file system may hang, and must not keep the node from leaving.
            lost = await in_abandonable_thread(partial(watch.look, trio.current_time()))
            if lost is not None:
                forget(lost)
                raise lost
    finally:
        watch.close()


def _lost(home: Path, what: str, fix: str) -> UserError:
    return UserError(
        "HOME_LOST",
        f"The node ends: its home {home} {what}.",
        why="without its home the node can keep neither its key nor its work",
        fix=fix,
    )
