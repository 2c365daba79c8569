"""Measures this machine for the limits of its volunteer: time, use, supply, heat, power, home."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from pathlib import Path

from daemon.system.cpu_sensors import cpu_energy_j, cpu_temperature_c
from daemon.system.gpu_sensors import GpuSensors
from daemon.system.power_supply import runs_on_battery
from daemon.system.user_activity import idle_seconds
from protocol.limits.limits import Limits, Readings

# The mean of power. A step of training has peaks that a minute levels.
POWER_S = 60.0
# Between two measurements of the home: a walk over a few hundred files.
HOME_S = 60.0


class MachineSensors:
    """Reads what the limits ask for. Call it in one thread at a time."""

    def __init__(self, home: Path, device: str) -> None:
        """`device` is the setting `worker.device`."""
        self._home, self._device = home, device
        self._gpus = GpuSensors()
        # Times in monotonic seconds: power samples in W, and the processors' energy in J.
        self._watts: deque[tuple[float, float]] = deque()
        self._energy: tuple[float, float] | None = None
        self._home_bytes: tuple[float, int] | None = None

    def read(self, limits: Limits) -> Readings:
        """Return what is measured now. Blocks for up to seconds."""
        gpus = self._gpus.read() if limits.temperature_c or limits.power_w else []
        warm = [one.temperature_c for one in gpus if one.temperature_c is not None]
        cpu_c = cpu_temperature_c() if limits.temperature_c else None
        watts = [one.power_w for one in gpus if one.power_w is not None]
        return Readings(
            minute=local_minute(time.time()),
            idle_s=idle_seconds() if limits.idle_s else None,
            on_battery=None if limits.on_battery else runs_on_battery(),
            temperature_c=max([*warm, *([cpu_c] if cpu_c is not None else [])], default=None),
            power_w=self._mean_watts(watts) if limits.power_w else None,
            home_bytes=self._measured_home() if limits.disk_bytes else None,
        )

    def _mean_watts(self, gpus: list[float]) -> float | None:
        """Return the mean of the last minute, of the GPU that trains or of the processors."""
        now = time.monotonic()
        sample = self._cpu_watts(now) if self._device == "cpu" or not gpus else self._of(gpus)
        if sample is not None:
            self._watts.append((now, sample))
        while self._watts and now - self._watts[0][0] > POWER_S:
            self._watts.popleft()
        known = [watts for _, watts in self._watts]
        return sum(known) / len(known) if known else None

    def _of(self, gpus: list[float]) -> float:
        """Return the power of the GPUs that the setting names; without numbers, of the first."""
        named = [int(number) for number in re.findall(r"\d+", self._device)] or [0]
        return sum(gpus[number] for number in named if number < len(gpus))

    def _cpu_watts(self, now: float) -> float | None:
        energy = cpu_energy_j()
        before, self._energy = self._energy, None if energy is None else (now, energy)
        # A meter that wrapped around says nothing this time.
        if energy is None or before is None or energy < before[1] or now <= before[0]:
            return None
        return (energy - before[1]) / (now - before[0])

    def _measured_home(self) -> int | None:
        now = time.monotonic()
        if self._home_bytes is None or now - self._home_bytes[0] >= HOME_S:
            self._home_bytes = (now, folder_bytes(self._home))
        return self._home_bytes[1]


def local_minute(now_s: float) -> int:
    """Return the minute of the week in local time, from Monday 00:00."""
    local = time.localtime(now_s)
    return (local.tm_wday * 24 + local.tm_hour) * 60 + local.tm_min


def folder_bytes(folder: Path) -> int:
    """Return what the files below a folder take of its disk."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += 512 * os.lstat(os.path.join(parent, name)).st_blocks
            except OSError:
                # The file was removed meanwhile.
                continue
    return total
