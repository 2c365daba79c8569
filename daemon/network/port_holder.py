"""Finds the program that listens on a TCP port of this machine."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# A state in net/tcp, see proc(5).
_LISTENING = "0A"


def port_holder(port: int) -> str:
    """The process in words; empty when it is unknown or belongs to another user."""
    inodes = _listening_inodes(port)
    if not inodes:
        return ""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        # The process may be another user's, or gone.
        with suppress(OSError):
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
