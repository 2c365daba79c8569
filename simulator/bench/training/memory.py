"""The memory of processes, from /proc."""

from __future__ import annotations

import os
from pathlib import Path


def peak_bytes(pid: int) -> int:
    """Return the most resident memory that a process ever had; 0 for one that is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


def private_bytes(pid: int) -> int:
    """Return the resident memory of a process without what it shares by `memfd`.

    0 for a process that is gone.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return sum(
        int(line.split()[1]) << 10
        for line in text.splitlines()
        if line.startswith(("RssAnon:", "RssFile:"))
    )


def descendants(pid: int) -> list[int]:
    """Return the live processes that a process started, and those that they started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, ahead = [], [pid]
    while ahead:
        below = children.get(ahead.pop(), [])
        found += below
        ahead += below
    return found


def peak_of_descendants() -> int:
    """Return the largest peak among the processes that this one started."""
    return max((peak_bytes(pid) for pid in descendants(os.getpid())), default=0)
