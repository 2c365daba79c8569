"""Processes as the kernel sees them: who belongs to whom, what is left, what they cost.

Nothing here believes what a process says of itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

# The processes of others tell nobody what they do: look often, with a limit.
POLL_S = 0.1
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

T = TypeVar("T")


class Process(msgspec.Struct, frozen=True):
    """One process, told apart from a later one that was given the same number."""

    pid: int
    started: int  # in clock ticks since boot

    @property
    def running(self) -> bool:
        """Whether it is still there; a zombie has ended."""
        fields = _fields(self.pid)
        return fields is not None and int(fields[19]) == self.started and fields[0] not in "ZX"

    @property
    def cpu_s(self) -> float:
        """Processor time it has used so far, its children not included."""
        fields = _fields(self.pid)
        assert fields is not None, f"process {self.pid} ended"
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    @property
    def memory_bytes(self) -> int:
        """Its resident memory."""
        fields = _fields(self.pid)
        assert fields is not None, f"process {self.pid} ended"
        return int(fields[21]) * PAGE_BYTES


def _fields(pid: int) -> list[str] | None:
    """/proc/PID/stat from the third field on (proc(5)): the second, the name, may hold anything."""
    try:
        return (
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rpartition(")")[2]
            .split()
        )
    except OSError:
        return None


def process(pid: int) -> Process:
    """The process that has this number now."""
    fields = _fields(pid)
    assert fields is not None, f"there is no process {pid}"
    return Process(pid, int(fields[19]))


def descendants(pid: int) -> list[Process]:
    """All that `pid` started, and what those started.

    Look before it ends: orphans are given to another parent.
    """
    children: dict[int, list[Process]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _fields(int(entry.name))) is not None:
            children.setdefault(int(fields[1]), []).append(
                Process(int(entry.name), int(fields[19]))
            )
    found, look = [], [pid]
    while look:
        own = children.get(look.pop(), [])
        found += own
        look += [child.pid for child in own]
    return found


def still_running(processes: Iterable[Process]) -> list[str]:
    """Those of `processes` that have not ended, with what they are."""
    return [f"{one.pid} {_command(one.pid)}" for one in processes if one.running]


def listening_ports(pid: int) -> list[int]:
    """The TCP ports on which the process takes connections, as /proc/net/tcp has them (proc(5))."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(os.readlink(descriptor))
        except OSError:
            continue  # closed while we looked
    ports = []
    for line in Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        local, state, inode = (line.split()[i] for i in (1, 3, 9))
        if state == "0A" and f"socket:[{inode}]" in sockets:
            ports.append(int(local.rpartition(":")[2], 16))
    return sorted(ports)


def _command(pid: int) -> str:
    try:
        return (
            Path(f"/proc/{pid}/cmdline")
            .read_bytes()
            .replace(b"\0", b" ")
            .decode(errors="replace")[:160]
        )
    except OSError:
        return ""


def until(look: Callable[[], T], what: str, limit_s: float) -> T:
    """The first true thing `look` returns.

    Raises `AssertionError` that says what did not happen.
    """
    deadline = time.monotonic() + limit_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        time.sleep(POLL_S)
    return seen
