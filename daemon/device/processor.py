"""Chooses the processor for training, and hides the differences of CPU and CUDA. Worker only."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from daemon.device.settings import WorkerSettings, choose_threads, devices_of
from protocol.errors import UserError

_HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Device:
    """The torch device: its copies, waits, precision and name."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Find the first device of the settings.

        Raises `UserError("DEVICE")` for a device that does not exist.
        """
        self.threads = choose_threads(settings.threads)
        self.torch = _find(devices_of(settings.device)[0])
        self.cuda = self.torch.type == "cuda"
        self._precision = _HALVES.get(settings.precision)
        # Whether gradients need a scaled loss: float16 has no values below 6e-8.
        self.scales_loss = self._precision == torch.float16
        if self.scales_loss and not self.cuda:
            raise UserError(
                "DEVICE",
                'The precision "float16" needs a CUDA device.',
                why="processors compute float16 more slowly than float32",
                fix='set precision = "float32" or "bfloat16" under [worker] in config.toml',
                exit_code=2,
            )
        self._compiles = settings.compile
        self._memory_bytes = int(1e9 * settings.memory_gb)
        self._step_done: torch.cuda.Event | None = None

    def claim(self) -> None:
        """Set up this whole process for training. Call once, in the thread that trains."""
        torch.set_num_threads(self.threads)
        torch.set_num_interop_threads(1)
        # numpy measures these once. Later it would warn, because denormals are then flushed.
        np.finfo(np.float32), np.finfo(np.float64)
        self.enter_thread()
        if self._memory_bytes:
            self._limit_memory()
        if self.cuda:
            # Use TF32: the gradient noise of any batch is larger than its rounding.
            torch.set_float32_matmul_precision("high")

    def _limit_memory(self) -> None:
        """Let allocations above the owner's limit fail, so that steps are computed in parts.

        On a CPU, the kernel counts this process's own writable memory (RLIMIT_DATA, setrlimit(2)),
        which leaves out the vectors that it shares with the node.
        """
        if self.cuda:
            total = torch.cuda.get_device_properties(self.torch).total_memory
            share = min(1.0, self._memory_bytes / total)
            torch.cuda.set_per_process_memory_fraction(share, self.torch)
        else:
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (self._memory_bytes, hard))

    def enter_thread(self) -> None:
        """Set up the calling thread, so that it computes as the others do."""
        # Adam's averages of zero gradients decay into denormals, which slow a CPU down 100 times.
        torch.set_flush_denormal(True)
        if self.cuda:
            torch.cuda.set_device(self.torch)

    def name(self) -> str:
        """Return the device's name for people."""
        if not self.cuda:
            return f"cpu ({self.threads} {'thread' if self.threads == 1 else 'threads'})"
        properties = torch.cuda.get_device_properties(self.torch)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GB"

    def autocast(self) -> AbstractContextManager[object]:
        """Compute in half precision, over float32 parameters, where the owner's settings say so."""
        if self._precision is None:
            return nullcontext()
        return torch.autocast(self.torch.type, dtype=self._precision)

    def compile(self, model: torch.nn.Module) -> None:
        """Let torch compile the model's forward pass at its first use, where the owner says so.

        The model stays the same object, with the same parameters.
        """
        if self._compiles:
            model.compile()

    def free_memory(self) -> None:
        """Give memory that torch keeps for later back to the device."""
        if self.cuda:
            torch.cuda.empty_cache()

    def put(self, batch: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Copy the batch to the device.

        Pinned memory lets the copy run beside the step before it.
        """
        if not self.cuda:
            return list(batch)
        return [tensor.pin_memory().to(self.torch, non_blocking=True) for tensor in batch]

    def pace(self) -> None:
        """Wait until the device is at most one step behind: more would delay the next command."""
        if self.cuda:
            if self._step_done is not None:
                self._step_done.synchronize()
            self._step_done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._step_done.record()

    def wait(self) -> None:
        """Wait until the device has done all of its work."""
        if self.cuda:
            torch.cuda.synchronize(self.torch)


def _find(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise UserError(
            "DEVICE",
            f"There is no device called {wanted!r}.",
            why="a device is auto, cpu, cuda, or cuda:1",
            exit_code=2,
        ) from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(
            "DEVICE",
            f"The device {wanted!r} is not supported.",
            why="a device is auto, cpu, cuda, or cuda:1",
            exit_code=2,
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        build = "" if torch.version.cuda else ", and the installed torch is a CPU build"
        raise UserError(
            "DEVICE",
            f"The device {wanted!r} does not exist: torch sees {count} CUDA"
            f" {'device' if count == 1 else 'devices'}{build}.",
            fix='check nvidia-smi, or set [worker] device = "auto"',
            exit_code=2,
        )
    return device
