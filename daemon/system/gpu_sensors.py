"""Reads temperature and power of NVIDIA GPUs from the driver (NVML)."""

from __future__ import annotations

import msgspec
import pynvml


class GpuReading(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU at one moment; None where the GPU does not report a figure."""

    temperature_c: float | None
    power_w: float | None


class GpuSensors:
    """The GPUs of this machine. The driver is opened at the first look."""

    def __init__(self) -> None:
        self._opened: bool | None = None

    def read(self) -> list[GpuReading]:
        """Return the GPUs in the driver's order; none without a driver. Blocks for milliseconds."""
        if self._opened is None:
            try:
                pynvml.nvmlInit()
                self._opened = True
            except pynvml.NVMLError:
                self._opened = False
        if not self._opened:
            return []
        try:
            count = pynvml.nvmlDeviceGetCount()
            return [_reading(pynvml.nvmlDeviceGetHandleByIndex(i)) for i in range(count)]
        except pynvml.NVMLError:
            # A GPU that fell off the bus. The next look opens the driver again.
            self._opened = None
            return []


def _reading(handle: object) -> GpuReading:
    try:
        celsius = float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
    except pynvml.NVMLError:
        celsius = None
    try:
        watts = pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
    except pynvml.NVMLError:
        watts = None
    return GpuReading(temperature_c=celsius, power_w=watts)
