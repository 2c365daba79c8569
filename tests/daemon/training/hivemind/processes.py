"""Lists the live processes of a process group, from /proc."""

from __future__ import annotations

import time
from pathlib import Path


def group_of(pid: int) -> dict[int, str]:
    """Return the live processes in the group of leader `pid`: their ids and command names."""
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
    """Wait for the group to end. Returns whether it ended within `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not group_of(pid):
            return True
        time.sleep(0.05)
    return not group_of(pid)
