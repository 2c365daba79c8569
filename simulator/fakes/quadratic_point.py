"""The parameters of a simulated trainer: a point that moves towards a target.

The loss is |x - target|^2 / parameters, plus what the samples add (`sample_noise.py`). All peers
share one target and one data set. The inner state is momentum, as in a real trainer.

A marked point moves by a constant that names peer and stretch (`mark_of`), so that a test can
recognize whose work is in a mean.
"""

from __future__ import annotations

import zlib
from functools import lru_cache

import numpy as np

from protocol.averaging.vector_layout import Vector
from protocol.identity import PeerId
from protocol.ports.trainer import Positions
from simulator.fakes.sample_noise import SampleNoise

LEARNING_RATE = np.float32(0.05)
MOMENTUM = np.float32(0.5)
# Marks are multiples of this unit, up to 2^12 in value: exact in float32.
MARK_UNIT = 2.0**-12


def mark_of(peer: PeerId, stretch: int) -> float:
    """The constant that marks stretch number `stretch` (from 0) of `peer`."""
    return MARK_UNIT * (1 + zlib.crc32(peer.encode()) % 4093 + 4096 * (stretch % 4096))


@lru_cache(maxsize=4)
def _target(seed: int, parameters: int) -> Vector:
    """The point that all peers of a run share, within [-1, 1], made once for all of a world."""
    shared = np.random.Generator(np.random.PCG64(seed))
    return (shared.random(parameters, dtype=np.float32) - np.float32(0.5)) * np.float32(2.0)


class QuadraticPoint:
    """The parameters, shape (parameters,), and the work since the last hand-over.

    `start` are the parameters from which the work counts, `now` the present ones. `steps` and
    `losses` count the work's steps and their losses.
    """

    def __init__(self, *, seed: int, peer: PeerId, parameters: int, marked: bool) -> None:
        self._peer, self._marked = peer, marked
        self._target = _target(seed, parameters)
        self._noise = SampleNoise(seed=seed, parameters=parameters)
        self.start = np.zeros(parameters, np.float32)
        self.now = np.zeros(parameters, np.float32)
        self.velocity = np.zeros(parameters, np.float32)
        self.steps = 0
        self.losses = 0.0
        # A shift that waits for the end of the step in progress.
        self._ahead: Vector | None = None
        # The loss at `now`, cached because every beacon asks for it.
        self._loss_now: float | None = None
        self._stretches = 0

    def place(self, anchor: Vector) -> None:
        """Start from an anchor, and drop the work."""
        self.now[:] = anchor
        self.start[:] = anchor
        self._loss_now = self._ahead = None
        self.steps, self.losses = 0, 0.0

    def shift(self, local: Vector, *, in_step: bool) -> None:
        """Move by `local - start`, at the end of the step in progress if there is one."""
        ahead = local - self.start
        self.start[:] = local
        if in_step:
            self._ahead = ahead if self._ahead is None else self._ahead + ahead
        else:
            self._move(ahead)

    def step(self, positions: Positions) -> None:
        """Make one step on the batch at `positions`, shape (samples,)."""
        self.losses += self.loss()
        self.steps += 1
        if not self._marked:
            gradient = self.now - self._target
            self._noise.pull(gradient, positions)
            self.velocity *= MOMENTUM
            self.velocity += gradient
            self.now -= LEARNING_RATE * self.velocity
            self._loss_now = None
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            self._move(ahead)

    def hand_over(self) -> tuple[Vector, float | None]:
        """Return the delta and the mean loss of the work, which begins again."""
        loss = self.losses / self.steps if self.steps else None
        if not self.steps:
            delta = np.zeros_like(self.start)
        elif self._marked:
            delta = np.full_like(self.start, mark_of(self._peer, self._stretches))
            self.start -= delta
            if self._ahead is None:
                self.now[:] = self.start
                self._loss_now = None
        else:
            there = self.now if self._ahead is None else self.now + self._ahead
            delta = self.start - there
            self.start[:] = there
        self._stretches += self.steps > 0
        self.steps, self.losses = 0, 0.0
        return delta, loss

    def loss(self) -> float:
        """The loss at the present parameters."""
        if self._loss_now is None:
            self._loss_now = self._loss_at(self.now)
        return self._loss_now

    def score(self, parameters: Vector) -> float:
        """The loss at any parameters, on samples that every peer shares."""
        return self._loss_at(parameters)

    def group_losses(self, parameters: Vector, positions: Positions) -> tuple[float, ...]:
        """The mean loss of each group of samples.

        Positions have shape (groups, samples). A marked point learns nothing from its samples.
        """
        if self._marked:
            return (self.score(parameters),) * len(positions)
        return self._noise.losses(parameters - self._target, positions)

    def _loss_at(self, parameters: Vector) -> float:
        gap = parameters - self._target
        return float(np.dot(gap, gap)) / gap.size

    def _move(self, ahead: Vector) -> None:
        if self._marked or not self.steps:
            self.now[:] = self.start
        else:
            self.now += ahead
        self._loss_now = None
