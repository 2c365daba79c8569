"""Reads temperature and energy of the processors from the kernel (hwmon and powercap, sysfs)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

HWMON = Path("/sys/class/hwmon")
POWERCAP = Path("/sys/class/powercap")
# The kernel's drivers of processor sensors, of Intel, AMD and Arm.
_DRIVERS = frozenset({"coretemp", "k10temp", "zenpower", "cpu_thermal", "scpi_sensors"})


def cpu_temperature_c(hwmon: Path = HWMON) -> float | None:
    """Return the temperature of the warmest core in C; None without a sensor."""
    return max(_temperatures(hwmon), default=None)


def cpu_energy_j(powercap: Path = POWERCAP) -> float | None:
    """Return the energy that the processors used since some moment, in J; None without a meter.

    The meters (RAPL) count up and wrap around after hours. Only root may read them, since Linux
    5.10.
    """
    packages = [_number(one / "energy_uj") for one in sorted(powercap.glob("intel-rapl:?"))]
    known = [energy for energy in packages if energy is not None]
    return sum(known) / 1e6 if known else None


def _temperatures(hwmon: Path) -> Iterator[float]:
    for sensor in sorted(hwmon.glob("hwmon*")):
        try:
            driver = (sensor / "name").read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if driver in _DRIVERS:
            for file in sensor.glob("temp*_input"):
                value = _number(file)
                if value is not None:
                    yield value / 1000


def _number(file: Path) -> float | None:
    try:
        return float(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
