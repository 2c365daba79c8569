"""Ends all processes that a child has started, even those that left its group or session.

`end_descendants` ends the descendants of the calling process. That is exact in a subreaper
(prctl(2)): each orphan among its descendants becomes its child. `end_marked` ends the processes
with a mark in their environment. It needs no ancestor, but misses processes that were started with
another environment.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# The environment variable that marks a child and its descendants.
MARK = "HYPERGPU_FAMILY"
# linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
# A process that SIGKILL does not end in this time hangs in a driver or in a network's file system.
_ENDED_S = 5.0
_LOOK_S = 0.005


def adopt_orphans() -> None:
    """Make the calling process the parent of every orphan among its descendants."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(but: int) -> None:
    """Reap adopted children that have ended, up to the first that is `but`."""
    with suppress(ChildProcessError):
        while (
            ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        ) is not None and ended.si_pid != but:
            os.waitpid(ended.si_pid, 0)


def end_descendants() -> None:
    """Kill and reap all descendants of the calling process, also those that start meanwhile.

    Gives up after `_ENDED_S`.
    """
    deadline = time.monotonic() + _ENDED_S
    empty = 0
    while time.monotonic() < deadline:
        found = descendants(os.getpid())
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        empty = 0 if found else empty + 1
        # A single look may miss a process that gets another parent meanwhile.
        if empty == 2:
            return
        time.sleep(_LOOK_S)


def end_marked(mark: str) -> None:
    """Kill all processes of this user whose environment has the value `mark` for `MARK`."""
    wanted = f"{MARK}={mark}".encode()
    for pid in _processes():
        try:
            carries = wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            # The process is another user's, or gone.
            continue
        if carries and pid != os.getpid():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def descendants(ancestor: int) -> list[int]:
    """Return the living descendants.

    A process that gets another parent meanwhile may be missing. Call again until none is left.
    """
    children: dict[int, list[int]] = {}
    # A process whose first thread has ended is a zombie, but its children stay with it while other
    # threads end.
    zombies: set[int] = set()
    for pid in _processes():
        try:
            # The second field of stat in proc(5) is the command, in brackets, with any characters.
            fields = (
                Path(f"/proc/{pid}/stat")
                .read_text(encoding="utf-8", errors="replace")
                .rpartition(")")[2]
                .split()
            )
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(pid)
        if fields[0] in "ZX":
            zombies.add(pid)
    found: list[int] = []
    look = [ancestor]
    while look:
        own = children.get(look.pop(), [])
        found += own
        look += own
    return [pid for pid in found if pid not in zombies]


def _processes() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
