"""One daemon per home: an flock that the kernel releases however its holder ends, so a stale one cannot exist."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.home import LOCK_FILE, unusable
from protocol.errors import UserError


@contextmanager
def home_lock(home: Path) -> Iterator[None]:
    """Hold the home for this process. Raises `UserError`: "ALREADY_RUNNING", which names the holder, or "HOME" where nothing can be written."""
    try:
        handle = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(home, error) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            raise UserError(
                "ALREADY_RUNNING",
                f"A daemon already runs on {home} (process {pid}).",
                why="two daemons with one key would contradict each other in the swarm",
                fix=f"hypergpud stop --home {home}   (or give the second one its own: hypergpud start --home OTHER)",
            ) from None
        try:
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
        except OSError as error:
            raise unusable(home, error) from None
        yield
    finally:
        os.close(handle)  # releases; the file stays, since removing it would let two processes lock two files of one name


def lock_holder(home: Path) -> int | None:
    """The process that holds the home, or None when nobody does. Never waits."""
    try:
        handle = os.open(home / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.read(handle, 32).strip()
            return int(text) if text.isdigit() else 0
        return None
    finally:
        os.close(handle)
