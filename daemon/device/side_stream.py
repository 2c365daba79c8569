"""Lets a second thread read and move the parameters while a step is computed. Worker process only.

A CUDA device computes in streams. Training has one, in which a step is queued while the thread that
trains runs ahead. The second thread uses a stream of its own: it waits for the last update and not
for the step in progress, and the next update waits for it. On a CPU, the lock of the training loop
does all of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from daemon.device.processor import Device


class SideStream:
    """The stream beside training. Every method but `copying` needs the training loop's lock."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.cuda:
            self._stream = torch.cuda.Stream(device.torch)  # type: ignore[no-untyped-call]
        self._updated: torch.cuda.Event | None = None
        self._read: torch.cuda.Event | None = None

    def updated(self) -> None:
        """Note that the training thread has changed the vectors."""
        if self._stream is not None:
            self._updated = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._updated.record()

    def join(self) -> None:
        """Let the training thread's next work wait for that of the other thread."""
        if self._read is not None:
            torch.cuda.current_stream(self._device.torch).wait_event(self._read)
            self._read = None

    @contextmanager
    def beside_training(self) -> Iterator[None]:
        """Run a block of the other thread after the last update and before the next one."""
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            if self._updated is not None:
                self._stream.wait_event(self._updated)
            yield
            self._read = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._read.record(self._stream)

    @contextmanager
    def copying(self) -> Iterator[None]:
        """Copy vectors that training does not change, after the last `beside_training`."""
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield
