"""Reads from the kernel whether this machine runs on a battery (power_supply class, sysfs)."""

from __future__ import annotations

from pathlib import Path

SUPPLIES = Path("/sys/class/power_supply")


def runs_on_battery(supplies: Path = SUPPLIES) -> bool | None:
    """Return whether a battery feeds this machine; None for a machine without a battery.

    Batteries of mice and keyboards do not count: the kernel gives them the scope "Device".
    """
    mains, states = [], []
    try:
        found = sorted(supplies.iterdir())
    except OSError:
        return None
    for supply in found:
        if _read(supply / "scope") == "Device":
            continue
        kind = _read(supply / "type")
        if kind == "Battery":
            states.append(_read(supply / "status"))
        elif kind:
            mains.append(_read(supply / "online") == "1")
    if not states:
        return None
    return not any(mains) and "Discharging" in states


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
