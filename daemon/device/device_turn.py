"""Shares the device's time between the training and the stage of one node, which are two processes.

The stage writes into a small file, mapped by both, when it computes. While an answer is being made,
training waits between two of its steps. It never waits for more than `STAGE_SHARE` of the time, so
a busy stage slows a node's training, and never ends it.

The device's memory is shared as the system divides it: a stage reserves its caches at its start.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Callable

from protocol.errors import UserError

STAGE_SHARE = 0.75
"""The most of the time that training leaves to the stage. Somebody waits for an answer, and a round
counts a node's samples, however many there are. With a quarter of them, its work still counts."""

LINGER_S = 0.5
"""How long after a step a stage counts as busy: until its next token comes through the chain."""

SLICE_S = 0.01
"""Training looks this often whether it may go on. A token takes longer."""

MAX_CREDIT_S = 10.0
"""The longest wait in one piece, after the longest steps: a command of the node waits no longer."""

_STAMP = struct.Struct("<d")


class DeviceTurn:
    """One side's view of the file. `path` "" shares nothing."""

    def __init__(
        self,
        path: str,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Map the file, and make it where it does not exist. Raises `UserError("TURN")`.

        `now` is the same clock in both processes, in seconds since the machine's start.
        """
        self._now, self._sleep = now, sleep
        self._shared: mmap.mmap | None = None
        self._credit_s = 0.0
        if path:
            try:
                self._shared = _mapped(path)
            except OSError as error:
                raise UserError(
                    "TURN",
                    f"Training and the stage of this node cannot share {path}.",
                    why=error.strerror or str(error),
                    fix="free some space there",
                ) from None

    def note_stage(self) -> None:
        """Note that the stage computes now."""
        if self._shared is not None:
            self._shared[:] = _STAMP.pack(self._now())

    def note_training(self, seconds: float) -> None:
        """Count a step of training, which earns the stage its share of the time."""
        earned_s = seconds * STAGE_SHARE / (1 - STAGE_SHARE)
        self._credit_s = min(MAX_CREDIT_S, self._credit_s + earned_s)

    def wait_for_stage(self) -> bool:
        """Wait a little where the stage is busy and has time to its credit. Returns whether it did.

        The caller looks for commands, and asks again.
        """
        if self._shared is None or self._credit_s <= 0 or not self._is_stage_busy():
            return False
        began_s = self._now()
        self._sleep(SLICE_S)
        self._credit_s -= self._now() - began_s
        return True

    def _is_stage_busy(self) -> bool:
        assert self._shared is not None
        (stamp_s,) = _STAMP.unpack(self._shared[:])
        # A stamp of another start of the machine may be in the future.
        return 0 <= self._now() - float(stamp_s) < LINGER_S


def _mapped(path: str) -> mmap.mmap:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(handle).st_size != _STAMP.size:
            # Written, not only lengthened: a full disk must say so here, and not end a process
            # that touches the mapped page.
            os.ftruncate(handle, 0)
            os.pwrite(handle, bytes(_STAMP.size), 0)
        return mmap.mmap(handle, _STAMP.size)
    finally:
        os.close(handle)
