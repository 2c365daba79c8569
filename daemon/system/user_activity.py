"""Tells how long nobody used this machine: at its terminals, and in its graphical sessions."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

DEVICES = Path("/dev")
# loginctl answers in milliseconds, or waits for a bus that does not answer.
ASK_S = 5.0
_GRAPHICAL = frozenset({"x11", "wayland", "mir"})


def idle_seconds(
    devices: Path = DEVICES, sessions: Callable[[], list[dict[str, str]]] | None = None
) -> float | None:
    """Return for how many seconds nobody typed or moved a mouse; None where nothing tells.

    The kernel notes each key in the time of the terminal's last read (up to 8 s late). A graphical
    session tells the login manager when it is idle; one that never does counts as in use. A machine
    without terminals and sessions is idle since ever.
    """
    if not devices.is_dir():
        return None
    now = time.time()
    idle = [now - used for used in _terminals(devices)]
    for session in (sessions or _sessions)():
        if session.get("Type") not in _GRAPHICAL or session.get("State") == "closing":
            continue
        since_us = session.get("IdleSinceHint", "")
        is_idle = session.get("IdleHint") == "yes" and since_us.isdecimal()
        idle.append(now - int(since_us) / 1e6 if is_idle else 0.0)
    return max(0.0, min(idle, default=float("inf")))


def _terminals(devices: Path) -> Iterator[float]:
    """The time of the last key at each terminal, in unix seconds."""
    for file in (*devices.glob("tty[0-9]*"), *devices.glob("pts/[0-9]*")):
        try:
            yield file.stat().st_atime
        except OSError:
            # The terminal was closed meanwhile.
            continue


def _sessions() -> list[dict[str, str]]:
    """The sessions that the login manager knows, as its properties; none without one."""
    program = shutil.which("loginctl")
    if program is None:
        return []
    names = [line.split()[0] for line in _asked(program, "list-sessions", "--no-legend")]
    properties = ("-p", "Type", "-p", "State", "-p", "IdleHint", "-p", "IdleSinceHint")
    return [
        dict(line.split("=", 1) for line in _asked(program, "show-session", name, *properties))
        for name in names
    ]


def _asked(program: str, *arguments: str) -> list[str]:
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=ASK_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line for line in done.stdout.splitlines() if line.strip() and "\0" not in line]
