"""Processes as the kernel sees them: their parents, their cost, and whether they run.

Nothing here trusts what a process reports about itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

# Other processes do not notify this one, so `until` polls.
POLL_S = 0.1
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

T = TypeVar("T")


class Process(msgspec.Struct, frozen=True):
    """One process; the start time distinguishes it from a later one with the same number."""

    pid: int
    # Clock ticks since boot.
    started: int

    @property
    def running(self) -> bool:
        """Whether the process runs; a zombie has ended."""
        fields = _fields(self.pid)
        return fields is not None and int(fields[19]) == self.started and fields[0] not in "ZX"

    @property
    def cpu_s(self) -> float:
        """Processor time so far, without its children."""
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
    """The fields of /proc/PID/stat from the third on (proc(5)); the name may contain anything."""
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
    """Return the process that has this number now."""
    fields = _fields(pid)
    assert fields is not None, f"process {pid} does not exist"
    return Process(pid, int(fields[19]))


def descendants(pid: int) -> list[Process]:
    """Return all processes that `pid` started, and that those started.

    Call this before `pid` ends, since orphans get another parent.
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
    """Return the number and command of each of `processes` that still runs."""
    return [f"{one.pid} {_command(one.pid)}" for one in processes if one.running]


def listening_ports(pid: int) -> list[int]:
    """Return the TCP ports on which the process listens, from /proc/net/tcp (proc(5))."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(os.readlink(descriptor))
        except OSError:
            # The descriptor was closed meanwhile.
            continue
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
    """Call `look` until it returns something true, and return that.

    Raises `AssertionError` with `what` after `limit_s`.
    """
    deadline = time.monotonic() + limit_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        time.sleep(POLL_S)
    return seen
