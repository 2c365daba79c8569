"""The port of the trainer: it owns the device and runs the inner loop."""

from __future__ import annotations

from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from protocol.averaging.vector_layout import Vector
from protocol.run.task_digest import TaskDigest

Positions = npt.NDArray[np.int64]
"""Positions in the run's order of samples."""


class ParameterSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of the model in flat order."""

    name: str
    shape: tuple[int, ...]
    init: str  # "zeros", "ones", "uniform" or "given"
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
    # The samples that are held out of training; 0 means that `evaluate` cannot score.
    held_out: int = 0
    # The samples that members draw from; 0 means that no work can be audited.
    trained: int = 0
    # Equal among the members of a run.
    task: TaskDigest = TaskDigest()


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """The samples that a node draws in a round.

    They are the positions `base + index + k * stride`, k = 0, 1, ..., of the run's keyed
    permutation. With a `limit` above 0, the lane has that many samples, and begins again at its
    first after the last.
    """

    base: int
    index: int
    stride: int
    limit: int = 0

    def after(self, samples: int) -> Lane:
        """The rest of this lane, behind its first `samples`.

        The rest of a limited lane begins again at its own first sample.
        """
        used = samples % self.limit if self.limit else samples
        return Lane(
            base=self.base + used * self.stride,
            index=self.index,
            stride=self.stride,
            limit=self.limit - used if self.limit else 0,
        )

    def part(self, number: int, count: int) -> Lane:
        """Part `number` of `count` parts of this lane: every `count`-th sample, from `number` on.

        The parts share no sample, unless the lane's limit is below `count`.
        """
        first = number % self.limit if self.limit else number
        return Lane(
            base=self.base + first * self.stride,
            index=self.index,
            stride=self.stride * count,
            limit=len(range(first, self.limit, count)),
        )

    def position(self, number: int) -> int:
        """The position of the lane's sample `number`, which counts from 0."""
        number = number % self.limit if self.limit else number
        return self.base + self.index + number * self.stride


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainer learned since the last `train`, `collect` or `hand_over`."""

    # Start parameters minus parameters now; all zeros when `samples` is 0. A view into shared
    # memory: use or copy it before the next call to the trainer.
    delta: Vector
    samples: int
    steps: int
    loss: float | None  # Mean over the samples, or None.
    seconds: float
    # The samples used of the trainer's lane since the lane began, with those of skipped batches and
    # of a step in progress. `hand_over` means the lane before its own.
    drawn: int = 0


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of the current stretch of training, from the trainer's last report.

    A stretch begins with `train`, `resume` or `shift`.
    """

    steps: int
    samples: int
    loss: float | None
    samples_per_second: float


class HeldOutShare(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the held-out samples that one node scores: every `count`-th, from `index` on."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"there is no share {self.index} of {self.count}")


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """How well parameters predict held-out samples.

    `metrics` are the task's own figures beside the loss, by name. `samples` were scored.
    """

    loss: float
    metrics: tuple[tuple[str, float], ...] = ()
    samples: int
    seconds: float


class GroupLosses(msgspec.Struct, frozen=True, kw_only=True):
    """The mean loss of each group of samples, and the time that it took."""

    losses: tuple[float, ...]
    seconds: float


class Trainer(Protocol):
    """The process that learns. It owns the device.

    Guaranteed: after `train`, `resume` and `shift` the trainer works without further calls.
    `collect` and `hand_over` give everything since the last of them, at the end of a whole step.
    The deltas of successive ones add up to the whole displacement. A cancelled call loses no step.

    Raises `TrainerLost` when the trainer died. The trainer then restarts, and everything not yet
    handed over is lost. A command that does not fit the trainer's state (`restore_inner_state`
    while it trains, `resume` before any anchor) raises the same and changes nothing.

    `position` sets the place in the run's schedules: the samples certified at the anchor. The
    trainer adds its own samples since then. None continues from the present position.
    """

    async def describe(self) -> TaskInfo:
        """Wait until the trainer is up; describe its task."""

    async def given_parameters(self) -> Vector:
        """Return the values that the task gives the tensors whose rule is "given".

        They have the places of the flat vector, shape (parameters,); other places are unspecified.
        Call this before the first `train`.
        """

    async def train(
        self, anchor: Vector, lane: Lane, *, position: int = 0, max_steps: int | None = None
    ) -> None:
        """Train from these parameters. The trainer keeps the inner optimizer's state."""

    async def resume(
        self, lane: Lane, *, position: int | None = None, max_steps: int | None = None
    ) -> None:
        """Train on from where the last `collect` paused, without a new anchor."""

    async def collect(self) -> Work:
        """Stop after the current step, hand over, stay paused."""

    async def hand_over(self, lane: Lane, *, position: int | None = None) -> Work:
        """Hand over the finished steps, and train on.

        Never waits for a step in progress, which belongs to the next work and keeps its samples of
        the old lane. Further steps draw from `lane`; the same lane continues where it was. Work
        from here on counts from the parameters that were handed over. A paused trainer stays
        paused.
        """

    async def release_work(self) -> None:
        """Free the memory of the last work's delta, which the caller has used or copied.

        The work itself stays received.
        """

    async def shift(
        self, local: Vector, lane: Lane, *, position: int = 0, max_steps: int | None = None
    ) -> None:
        """Move to another anchor without losing steps, and train on.

        At the end of a step in progress, the parameters move by `local - start`, where `start` are
        the parameters at the last hand-over. From then on work counts from `local`. Steps since the
        last hand-over stay part of the next work, and the position counts them.

        Returns when the command is taken. Never waits for a step in progress. Raises `TrainerLost`
        where the trainer has no anchor.
        """

    async def evaluate(self, parameters: Vector, share: HeldOutShare) -> Evaluation:
        """Score parameters on a share of the held-out samples, between two steps.

        Training goes on afterwards as if nothing had happened; it may go on before this call
        returns. Other calls do not wait for this one. The trainer needs no anchor.

        Raises:
            EvaluationFailed: the task cannot score them. Training goes on.
        """

    async def group_losses(self, parameters: Vector, positions: Positions) -> GroupLosses:
        """Measure the mean loss of groups of training samples, between two steps.

        As for `evaluate`, training is not disturbed. A few groups are measured at a time, so that
        no step waits for long.

        Args:
            parameters: shape (parameters,).
            positions: the samples' positions in the run's order, shape (groups, samples).

        Raises:
            EvaluationFailed: the task cannot score them. Training goes on.
        """

    async def inner_state(self) -> Vector:
        """Copy the inner optimizer's state into one flat vector, for a checkpoint.

        A trainer that trains gives the state at the end of its last finished step.
        """

    async def restore_inner_state(self, state: Vector) -> None:
        """Restore what `inner_state` returned before a restart. The trainer must be paused.

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


class EvaluationFailed(Exception):
    """The task cannot score parameters. The message says why, with the file and the line."""
