"""What belongs to a process, seen from outside: its process group in /proc, which takes in what was
forked from it and what that started.
"""

from __future__ import annotations

import time
from pathlib import Path


def group_of(pid: int) -> dict[int, str]:
    """Every live process in the group of leader `pid`, with its command's name."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            name, _, rest = (
                (entry / "stat")
                .read_text(encoding="ascii", errors="replace")
                .partition(" (")[2]
                .rpartition(") ")
            )
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _parent, group = rest.split()[:3]
        if int(group) == pid and state not in "ZX":
            found[int(entry.name)] = name
    return found


def gone_within(pid: int, seconds: float) -> bool:
    """Whether nobody of the group is left before so many seconds have passed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not group_of(pid):
            return True
        time.sleep(0.05)
    return not group_of(pid)
