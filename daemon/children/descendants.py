"""All that a child process started, and how it is ended: also what left its group, its session or
its parent.

`end_descendants` ends what descends from the calling process. That is exact in a process that is a
subreaper (prctl(2)): an orphan of its family becomes its child, whatever the orphan did to get
away. `end_marked` ends what carries a mark in its environment. That needs no ancestor, and misses
what was started with another environment.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# The environment variable whose value tells one family from every other.
MARK = "HYPERGPU_FAMILY"
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
# A process that SIGKILL does not end in that time hangs in a driver or in a network's file system.
_ENDED_S = 5.0
_LOOK_S = 0.005


def adopt_orphans() -> None:
    """Make the calling process the parent of every orphan among its descendants."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(but: int) -> None:
    """Let ended children go that were adopted, up to the first that is `but`."""
    with suppress(ChildProcessError):
        while (
            ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        ) is not None and ended.si_pid != but:
            os.waitpid(ended.si_pid, 0)


def end_descendants() -> None:
    """Kill and reap all that descends from the calling process, also what is started meanwhile.

    Gives up after `_ENDED_S`.
    """
    deadline = time.monotonic() + _ENDED_S
    while time.monotonic() < deadline:
        found = _descendants(os.getpid())
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not found:
            return
        time.sleep(_LOOK_S)


def end_marked(mark: str) -> None:
    """Kill all processes of this user in whose environment `mark` is the value of `MARK`."""
    wanted = f"{MARK}={mark}".encode()
    for pid in _processes():
        try:
            carries = wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue  # another user's, or gone
        if carries and pid != os.getpid():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _descendants(ancestor: int) -> list[int]:
    """The living ones.

    A process that was given to another parent during the look may be missing: look again until none
    is left.
    """
    children: dict[int, list[int]] = {}
    for pid in _processes():
        try:
            # The second field of proc(5)'s stat is the command in brackets, and may hold anything.
            fields = (
                Path(f"/proc/{pid}/stat")
                .read_text(encoding="utf-8", errors="replace")
                .rpartition(")")[2]
                .split()
            )
        except OSError:
            continue
        if fields[0] not in "ZX":
            children.setdefault(int(fields[1]), []).append(pid)
    found: list[int] = []
    look = [ancestor]
    while look:
        own = children.get(look.pop(), [])
        found += own
        look += own
    return found


def _processes() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
