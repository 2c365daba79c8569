"""The port of the trainer: it owns the device and runs the inner loop."""

from __future__ import annotations

from typing import Protocol

import msgspec

from protocol.averaging.vector_layout import Vector
from protocol.run.task_digest import TaskDigest


class ParameterSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of the model in flat order."""

    name: str
    shape: tuple[int, ...]
    init: str  # "zeros", "ones" or "uniform"
    # Half the width of "uniform".
    bound: float = 0.0


class TaskInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainer reports about its task once it is up.

    The flat vector holds the tensors of `specs` in order, each in C order.
    """

    parameters: int
    specs: tuple[ParameterSpec, ...]
    dataset_size: int
    # For a person: "cpu (2 threads)", "NVIDIA GeForce RTX 3060, 12 GB".
    device: str
    threads: int
    # Equal among the members of a run.
    task: TaskDigest = TaskDigest()


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """The samples that a node draws in a round.

    They are the positions `base + index + k * stride`, k = 0, 1, ..., of the run's keyed
    permutation.
    """

    base: int
    index: int
    stride: int

    def after(self, samples: int) -> Lane:
        """The rest of this lane, behind its first `samples`."""
        return Lane(base=self.base + samples * self.stride, index=self.index, stride=self.stride)


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainer learned since the last `train` or `collect`."""

    # Start parameters minus parameters now; all zeros when `samples` is 0. A view into shared
    # memory: use or copy it before the next call to the trainer.
    delta: Vector
    samples: int
    steps: int
    loss: float | None  # Mean over the samples, or None.
    seconds: float


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of the current stretch of training, from the trainer's last report."""

    steps: int
    samples: int
    loss: float | None
    samples_per_second: float


class Trainer(Protocol):
    """The process that learns. It owns the device.

    Guaranteed: between `train` and `collect` the trainer works without further calls. `collect`
    ends after a whole step, hands over everything since the last `train` or `collect`, and leaves
    the trainer paused. The deltas of successive `collect` calls add up to the whole displacement.

    Raises `TrainerLost` when the trainer died. The trainer then restarts, and everything not yet
    collected is lost. A command that does not fit the trainer's state (`inner_state` while it
    trains, `resume` before any anchor) raises the same and changes nothing.
    """

    async def describe(self) -> TaskInfo:
        """Wait until the trainer is up; describe its task."""

    async def train(self, anchor: Vector, lane: Lane, *, max_steps: int | None = None) -> None:
        """Train from these parameters. The trainer keeps the inner optimizer's state."""

    async def resume(self, lane: Lane, *, max_steps: int | None = None) -> None:
        """Train on from where the last `collect` paused, without a new anchor."""

    async def collect(self) -> Work:
        """Stop after the current step, hand over, stay paused."""

    async def inner_state(self) -> Vector:
        """Copy the inner optimizer's state into one flat vector, for a checkpoint.

        The trainer must be paused.
        """

    async def restore_inner_state(self, state: Vector) -> None:
        """Restore what `inner_state` returned before a restart.

        Raises:
            ValueError: the state does not fit.
        """

    def progress(self) -> Progress: ...

    @property
    def restarts(self) -> int:
        """How often the trainer died by itself and was restarted."""


class TrainerLost(Exception):
    """The trainer died, or its state does not fit the command.

    What a dead trainer had not handed over is lost. `train` helps in both cases, once the trainer
    is up. The message says why, in one sentence.
    """
