"""Looks after the home of a running node: whether the directory, its lock and its key are still
those with which the node began.

A home can be removed, moved, replaced or unmounted under a running node. The node then ends with
one sentence: what it would write from there on would make a new home without key and lock. A lock
or a key that alone disappeared (a cleaner of old files) is made again from what the node holds.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio

from daemon.disk.new_file import write_new
from daemon.home.layout import KEY_FILE, LOCK_FILE, unusable_home
from daemon.home.lock import BEAT_S, acquire, own_mark, write_mark
from daemon.home.pinned_directory import identity
from protocol.errors import UserError

LOOK_S = 1.0  # three stats
# Looks in a row that the file system may fail, as a network's does for a moment.
PATIENCE = 3
MARK_BYTES = 256

_log = logging.getLogger(__name__)


class HomeWatcher:
    """One node's home. The caller holds the home's lock. Closed with `close`."""

    def __init__(self, home: Path, seed: bytes) -> None:
        """`seed` is the node's key, as it is in the home.

        Raises `OSError` where the home cannot be read.
        """
        self._home, self._seed = home, seed
        # systemd-tmpfiles leaves alone what is in a directory that somebody holds with flock(2).
        self._directory = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with suppress(OSError):
            fcntl.flock(self._directory, fcntl.LOCK_SH | fcntl.LOCK_NB)
        self._id = identity(os.fstat(self._directory))
        self._lock = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
        self._failures = 0
        self._beats = 0.0
        # Whether the lock says who holds it: a full disk may refuse that.
        self._marked = True

    def close(self) -> None:
        os.close(self._lock)
        os.close(self._directory)

    def look(self, now: float) -> UserError | None:
        """Look once, mend what can be mended, touch the lock in time.

        Returns why the node must end, if it must. `now` is monotonic, in seconds.
        """
        try:
            found = identity(os.stat(self._home))
        except FileNotFoundError:
            return self._gone()
        except OSError as error:
            self._failures += 1
            if self._failures < PATIENCE:
                return None
            return _lost(
                self._home,
                f"cannot be reached any more: {error.strerror}",
                "make it reachable, then start the node again",
            )
        self._failures = 0
        if found != self._id:
            return _lost(
                self._home,
                "is another directory now",
                f"find out what replaced or unmounted it, then: hypergpud start --home {self._home}",
            )
        try:
            return self._look_at_lock(now) or self._look_at_key()
        except OSError as error:
            # A read-only or full medium: the disk port tells of that.
            _log.debug("the home's lock or key cannot be looked after: %s", error)
            return None

    def _gone(self) -> UserError:
        where = os.readlink(f"/proc/self/fd/{self._directory}")
        if where.endswith(" (deleted)"):
            fix = "put a backup there to keep this node's key and work, or start anew: hypergpud start"
            return _lost(self._home, "was removed", fix)
        return _lost(self._home, f"was moved to {where}", f"hypergpud start --home {where}")

    def _look_at_lock(self, now: float) -> UserError | None:
        path = self._home / LOCK_FILE
        try:
            known = identity(os.stat(path)) == identity(os.fstat(self._lock))
        except FileNotFoundError:
            return self._lock_again(path)
        if (
            known
            and not self._marked
            and own_mark().startswith(os.pread(self._lock, MARK_BYTES, 0))
        ):
            self._mark()
        if not known or os.pread(self._lock, MARK_BYTES, 0) != own_mark():
            return _lost(self._home, "was taken by another process", f"see who uses it, in {path}")
        if now - self._beats >= BEAT_S:
            os.utime(self._lock)
            self._beats = now
        return None

    def _lock_again(self, path: Path) -> UserError | None:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not acquire(handle):
            os.close(handle)
            return _lost(self._home, "was taken by another process", f"see who uses it, in {path}")
        os.close(self._lock)
        # Ours from here on, also where a full disk takes no mark yet: the next look writes it.
        self._lock, self._marked = handle, False
        _log.warning(
            "%s was removed, and is made again: a cleaner of old files should leave this directory alone",
            path,
        )
        self._mark()
        return None

    def _mark(self) -> None:
        write_mark(self._lock)
        self._marked = True

    def _look_at_key(self) -> UserError | None:
        path = self._home / KEY_FILE
        if not path.exists() and write_new(path, self._seed):
            _log.warning(
                "%s was removed, and is written again. To give the home a new key, stop the node first",
                path,
            )
        return None


async def watch_home(home: Path, seed: bytes, forget: Callable[[UserError], None]) -> None:
    """Until cancelled. When the home is lost, `forget` is called with why, after which nothing
    may be written there; then raises `UserError("HOME_LOST")`.

    Raises `UserError("HOME")` where the home or its lock cannot be read at all.
    """
    try:
        watch = HomeWatcher(home, seed)
    except OSError as error:
        raise unusable_home(home, error) from None
    try:
        while True:
            await trio.sleep(LOOK_S)
            # A look at a network's file system may hang. It must not keep the node from leaving.
            lost = await trio.to_thread.run_sync(
                watch.look, trio.current_time(), abandon_on_cancel=True
            )
            if lost is not None:
                forget(lost)
                raise lost
    finally:
        watch.close()


def _lost(home: Path, what: str, fix: str) -> UserError:
    return UserError(
        "HOME_LOST",
        f"The node ends: its home {home} {what}.",
        why="without it the node can keep neither its key nor what it learned",
        fix=fix,
    )
