"""Findings about the machine: disk, memory, clock, device."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from pathlib import Path

from daemon.config.settings import WorkerConfig
from daemon.device.settings import devices_of
from daemon.diagnosis.finding import Finding, Verdict
from protocol.status.figures import duration, size

# A few states of a small model, and what the journal and the log need.
LEAST_DISK_BYTES, ENOUGH_DISK_BYTES = 200_000_000, 5_000_000_000
# The worker with torch and a small model, measured: 700 MB.
LEAST_MEMORY_BYTES = 1_000_000_000
# A query of the driver takes a second; a driver that hangs takes longer.
DRIVER_S = 10.0
# The release of the first rules 4 run: a clock before it is wrong.
EARLIEST_S = 1_760_000_000.0
# Beacons and invitations allow for clocks that differ by a minute.
MAX_CLOCK_ERROR_S = 5.0
_STATE_UNSYNCHRONIZED = 5
_TIMEX_BYTES = 208
_MAX_ERROR_OFFSET = 24


def disk_finding(home: Path) -> Finding:
    """Look at the free space of the home's disk."""
    folder = home
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    seen = f"{size(free)} are free for {home}"
    if free < LEAST_DISK_BYTES:
        fix = "free some space there, or move the home: --home PATH"
        return Finding(what="disk", verdict="blocked", evidence=seen, fix=fix)
    if free < ENOUGH_DISK_BYTES:
        fix = "free some space, or keep fewer checkpoints: hypergpud config set disk.keep_gb 1"
        return Finding(what="disk", verdict="warning", evidence=seen, fix=fix)
    return Finding(what="disk", verdict="ok", evidence=seen)


def memory_finding() -> Finding:
    """Look at the available memory."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        (line,) = [one for one in lines if one.startswith("MemAvailable:")]
        available = int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return Finding(what="memory", verdict="unknown", evidence="/proc/meminfo cannot be read")
    seen = f"{size(available)} are available"
    if available < LEAST_MEMORY_BYTES:
        fix = "close other programs; the worker needs about 1 GB"
        return Finding(what="memory", verdict="warning", evidence=seen, fix=fix)
    return Finding(what="memory", verdict="ok", evidence=seen)


def clock_finding(now_s: float | None = None) -> Finding:
    """Look at whether something keeps the clock right (`adjtimex(2)`)."""
    now_s = time.time() if now_s is None else now_s
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s))
    sync = "let the system keep the time: timedatectl set-ntp true"
    if now_s < EARLIEST_S:
        return Finding(
            what="clock", verdict="blocked", evidence=f"the clock says {shown}", fix=sync
        )
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    if state < 0:
        return Finding(
            what="clock", verdict="unknown", evidence=f"{shown}; the kernel says no more"
        )
    error_s = ctypes.c_long.from_buffer(buffer, _MAX_ERROR_OFFSET).value / 1_000_000
    if state == _STATE_UNSYNCHRONIZED or error_s > MAX_CLOCK_ERROR_S:
        seen = f"{shown}; nothing keeps this clock right, it may be off by {duration(error_s)}"
        return Finding(what="clock", verdict="warning", evidence=seen, fix=sync)
    seen = f"{shown}, right within {duration(error_s)}"
    return Finding(what="clock", verdict="ok", evidence=seen)


def device_finding(settings: WorkerConfig) -> Finding:
    """Look at the GPU that the settings want, and at its driver."""
    devices = devices_of(settings.device)
    wants_gpu = any(device.startswith("cuda") for device in devices)
    if set(devices) == {"cpu"}:
        cores = len(os.sched_getaffinity(0))
        return Finding(what="device", verdict="ok", evidence=f"the CPU, as set ({cores} cores)")
    program = shutil.which("nvidia-smi")
    if program is None:
        if wants_gpu or any(Path("/dev").glob("nvidia[0-9]*")):
            verdict: Verdict = "blocked" if wants_gpu else "warning"
            seen = f"worker.device is {settings.device}, and the NVIDIA driver is not installed"
            fix = "install the driver, or: hypergpud config set worker.device cpu"
            return Finding(what="device", verdict=verdict, evidence=seen, fix=fix)
        return Finding(what="device", verdict="ok", evidence="no GPU: the worker uses the CPU")
    query = "--query-gpu=name,driver_version,memory.used,memory.total,temperature.gpu"
    try:
        done = subprocess.run(
            [program, query, "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=DRIVER_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return _driver_fails(wants_gpu, str(error))
    gpus = done.stdout.strip().splitlines()
    if done.returncode or not gpus:
        return _driver_fails(wants_gpu, (done.stderr or done.stdout).strip() or "it lists no GPU")
    numbers = [int(number) for device in devices if (number := device.partition(":")[2])]
    if max(numbers, default=0) >= len(gpus):
        fix = f"hypergpud config set worker.device cuda:{len(gpus) - 1}"
        seen = f"worker.device is {settings.device}, and there are {len(gpus)} GPUs"
        return Finding(what="device", verdict="blocked", evidence=seen, fix=fix)
    return Finding(what="device", verdict="ok", evidence="; ".join(gpus))


def _driver_fails(wants_gpu: bool, why: str) -> Finding:
    return Finding(
        what="device",
        verdict="blocked" if wants_gpu else "warning",
        evidence=f"nvidia-smi fails: {why.splitlines()[0][:200]}",
        fix="restart the machine after a driver update, or: hypergpud config set worker.device cpu",
    )
