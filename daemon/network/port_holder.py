"""Which program listens on a TCP port of this machine, as the kernel tells it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_LISTENING = "0A"  # the state in proc(5)'s net/tcp


def port_holder(port: int) -> str:
    """The process in words; empty where it is another user's, or cannot be told."""
    inodes = _listening_inodes(port)
    if not inodes:
        return ""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with suppress(OSError):  # another user's, or gone
            for descriptor in os.listdir(f"/proc/{entry}/fd"):
                with suppress(OSError):
                    if os.readlink(f"/proc/{entry}/fd/{descriptor}") in inodes:
                        name = (
                            Path(f"/proc/{entry}/comm")
                            .read_text(encoding="utf-8", errors="replace")
                            .strip()
                        )
                        return f"process {entry} ({name})"
    return ""


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{fields[9]}]")
    return found
