"""The readings of the machine, from trees like those of the kernel."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pynvml
import pytest

from daemon.system import machine_sensors
from daemon.system.cpu_sensors import cpu_energy_j, cpu_temperature_c
from daemon.system.gpu_sensors import GpuReading, GpuSensors
from daemon.system.machine_sensors import MachineSensors, folder_bytes, local_minute
from daemon.system.power_supply import runs_on_battery
from daemon.system.user_activity import idle_seconds
from protocol.limits.limits import Limits


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="ascii")
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"AC/type": "Mains", "AC/online": "1"}, None),
        ({"BAT0/type": "Battery", "BAT0/status": "Discharging"}, True),
        ({"BAT0/type": "Battery", "BAT0/status": "Full"}, False),
        (
            {
                "AC/type": "Mains",
                "AC/online": "0",
                "BAT0/type": "Battery",
                "BAT0/status": "Discharging",
            },
            True,
        ),
        (
            {
                "ucsi/type": "USB",
                "ucsi/online": "1",
                "BAT0/type": "Battery",
                "BAT0/status": "Discharging",
            },
            False,
        ),
        (
            {"hid/type": "Battery", "hid/status": "Discharging", "hid/scope": "Device"},
            None,
        ),
        ({"BAT0/type": "Battery"}, False),
    ],
)
def test_runs_on_battery(tmp_path: Path, files: dict[str, str], expected: bool | None) -> None:
    assert runs_on_battery(tree(tmp_path, files)) is expected
    assert runs_on_battery(tmp_path / "none") is None


def test_cpu_temperature_is_that_of_the_warmest_core(tmp_path: Path) -> None:
    files = {
        "hwmon0/name": "nvme",
        "hwmon0/temp1_input": "99000",
        "hwmon1/name": "coretemp",
        "hwmon1/temp1_input": "61000",
        "hwmon1/temp2_input": "73500",
        "hwmon1/temp3_input": "broken",
    }
    assert cpu_temperature_c(tree(tmp_path, files)) == 73.5
    assert cpu_temperature_c(tmp_path / "none") is None


def test_cpu_energy_is_the_sum_of_the_packages(tmp_path: Path) -> None:
    files = {"intel-rapl:0/energy_uj": "2000000", "intel-rapl:1/energy_uj": "3000000"}
    files["intel-rapl:0:0/energy_uj"] = "1000000"
    assert cpu_energy_j(tree(tmp_path, files)) == 5.0
    assert cpu_energy_j(tmp_path / "none") is None


def test_idle_seconds_are_those_of_the_last_key(tmp_path: Path) -> None:
    now = time.time()
    tree(tmp_path, {"tty1": "", "pts/0": "", "pts/ptmx": "", "null": ""})
    for name, ago_s in (("tty1", 9000), ("pts/0", 600), ("pts/ptmx", 1), ("null", 0)):
        os.utime(tmp_path / name, (now - ago_s, now))
    idle = idle_seconds(tmp_path, list)
    assert idle == pytest.approx(600, abs=60)
    used = {"Type": "wayland", "State": "active", "IdleHint": "no", "IdleSinceHint": "0"}
    assert idle_seconds(tmp_path, lambda: [used]) == 0.0
    locked = used | {"IdleHint": "yes", "IdleSinceHint": str(int(1e6 * (now - 300)))}
    assert idle_seconds(tmp_path, lambda: [locked]) == pytest.approx(300, abs=60)
    remote = used | {"Type": "tty"}
    assert idle_seconds(tmp_path, lambda: [remote]) == pytest.approx(600, abs=60)
    (tmp_path / "empty").mkdir()
    assert idle_seconds(tmp_path / "empty", list) == float("inf")
    assert idle_seconds(tmp_path / "none", list) is None


def test_gpu_sensors_without_a_driver_read_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    assert GpuSensors().read() == []


def test_gpu_sensors_read_what_the_driver_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_meter(_handle: object) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 1)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda i: i)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTemperature", lambda handle, kind: 71)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", lambda handle: 312_500)
    sensors = GpuSensors()
    assert sensors.read() == [GpuReading(temperature_c=71.0, power_w=312.5)]
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", no_meter)
    assert sensors.read() == [GpuReading(temperature_c=71.0, power_w=None)]


class _Gpus:
    def __init__(self, *watts: float) -> None:
        self.watts = list(watts)

    def read(self) -> list[GpuReading]:
        return [GpuReading(temperature_c=60.0, power_w=self.watts.pop(0))]


def test_machine_sensors_average_power_over_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensors = MachineSensors(tmp_path, "auto")
    sensors._gpus = _Gpus(300.0, 100.0, 50.0)  # type: ignore[assignment]
    now = [0.0]
    monkeypatch.setattr(machine_sensors.time, "monotonic", lambda: now[0])
    limits = Limits(power_w=200, temperature_c=80)
    seen = []
    for at in (0.0, 30.0, 70.0):
        now[0] = at
        seen.append(sensors.read(limits).power_w)
    assert seen == [300.0, 200.0, 75.0]


def test_machine_sensors_measure_power_of_the_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensors = MachineSensors(tmp_path, "cpu")
    # The third reading is after the meter wrapped around.
    energy = iter([1000.0, 1250.0, 10.0, 210.0])
    now = iter([0.0, 5.0, 10.0, 15.0])
    monkeypatch.setattr(machine_sensors, "cpu_energy_j", lambda: next(energy))
    monkeypatch.setattr(machine_sensors.time, "monotonic", lambda: next(now))
    seen = [sensors.read(Limits(power_w=10)).power_w for _ in range(4)]
    assert seen == [None, 50.0, 50.0, 45.0]


def test_machine_sensors_measure_the_home_and_only_what_is_asked(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "state").write_bytes(bytes(1_000_000))
    sensors = MachineSensors(tmp_path, "cpu")
    read = sensors.read(Limits(on_battery=True))
    assert (read.idle_s, read.on_battery, read.power_w, read.home_bytes) == (None,) * 4
    assert 1_000_000 <= (sensors.read(Limits(disk_bytes=1)).home_bytes or 0) < 1_100_000
    assert folder_bytes(tmp_path / "none") == 0


def test_local_minute_begins_on_monday(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    # 2026-11-30 00:00 UTC.
    monday = 1_795_996_800.0
    assert local_minute(monday) == 0
    assert local_minute(monday + 6 * 86_400 + 60) == 6 * 24 * 60 + 1


@pytest.mark.real
def test_worker_memory_limit_makes_large_allocations_fail() -> None:
    code = (
        "import torch\n"
        "from daemon.device.processor import Device\n"
        "from daemon.device.settings import WorkerSettings\n"
        "device = Device(WorkerSettings(device='cpu', memory_gb=2.0))\n"
        "device.claim()\n"
        "torch.ones(50_000_000)\n"
        "try:\n"
        "    torch.ones(800_000_000)\n"
        "except RuntimeError as error:\n"
        '    print("can\'t allocate memory" in str(error))\n'
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "True\n", done.stderr
