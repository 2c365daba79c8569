"""A trainer without a device: it moves towards a point, one step per so many virtual seconds.

The loss is |x - target|^2 / parameters. The target is a point that all peers share, plus a small
offset of each peer. The gradient's noise follows from the sample's position alone. Its inner state
is momentum, as in a real trainer: what it does depends on the anchor, the lane, the inner state and
the time it is given, and on nothing else.

With `marked=True` a stretch moves the parameters by a constant that names peer and stretch
(`mark_of`), so that a test can recognize whose work is in a mean.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache

import numpy as np
import trio

from protocol.averaging.vector_layout import Vector
from protocol.identity import PeerId
from protocol.ports.trainer import Lane, ParameterSpec, Progress, TaskInfo, TrainerLost, Work
from protocol.run.task_digest import SourcePart, TaskDigest, TensorPart

LEARNING_RATE = np.float32(0.05)
MOMENTUM = np.float32(0.5)
# The spread of the peers' own targets around the shared one, which lies within [-1, 1].
PEER_SPREAD = np.float32(0.05)
NOISE = np.float32(0.05)
# Positions share this many rows of noise: cheap, and still different from step to step.
NOISE_ROWS = 64
DATASET_SIZE = 1 << 20
# The first backoff of the real supervisor.
RESTART_S = 1.0
# Marks are multiples of this unit, up to 2^12 in value: exact in float32.
MARK_UNIT = 2.0**-12


def mark_of(peer: PeerId, stretch: int) -> float:
    """The constant that marks stretch number `stretch` (from 0) of `peer`."""
    return MARK_UNIT * (1 + zlib.crc32(peer.encode()) % 4093 + 4096 * (stretch % 4096))


@lru_cache(maxsize=4)
def _target(seed: int, parameters: int) -> Vector:
    """The point that all peers of a run share, made once for all trainers of a world."""
    shared = np.random.Generator(np.random.PCG64(seed))
    return (shared.random(parameters, dtype=np.float32) - np.float32(0.5)) * np.float32(2.0)


@lru_cache(maxsize=4)
def _noise(seed: int, parameters: int) -> Vector:
    """The rows of noise, shape (NOISE_ROWS, parameters), as large as 64 models.

    A marked world does not need them.
    """
    shared = np.random.Generator(np.random.PCG64(seed))
    # Skip the target's numbers.
    shared.random(parameters, dtype=np.float32)
    return shared.standard_normal((NOISE_ROWS, parameters), dtype=np.float32) * NOISE


class QuadraticTrainer:
    """A `ports.Trainer` in virtual time.

    A change of `samples_per_second` counts from the next `train` or `resume`.
    """

    def __init__(
        self,
        *,
        seed: int,
        peer: PeerId,
        parameters: int = 64,
        samples_per_second: float = 100.0,
        batch_size: int = 10,
        marked: bool = False,
        version: int = 1,
    ) -> None:
        """Make a trainer. Work of trainers with different `version`s must not be averaged."""
        self.samples_per_second = samples_per_second
        self.restarts = 0
        self._seed = seed
        self._peer = peer
        self._batch_size = batch_size
        self._marked = marked
        own = np.random.Generator(np.random.PCG64([seed, zlib.crc32(peer.encode())]))
        self._target = (
            _target(seed, parameters)
            + own.standard_normal(parameters, dtype=np.float32) * PEER_SPREAD
        )
        self._info = TaskInfo(
            parameters=parameters,
            specs=(ParameterSpec(name="point", shape=(parameters,), init="uniform", bound=1.0),),
            dataset_size=DATASET_SIZE,
            device="simulated",
            threads=1,
            task=TaskDigest(
                parameters=(TensorPart(name="point", shape=(parameters,), dtype="float32"),),
                dataset_size=DATASET_SIZE,
                source=(SourcePart(name="simulated task", digest=str(version).encode()),),
            ),
        )
        self._start = np.zeros(parameters, np.float32)
        self._now = np.zeros(parameters, np.float32)
        self._velocity = np.zeros(parameters, np.float32)
        # The loss at `_now`, cached because every beacon asks for it.
        self._loss_now: float | None = None
        self._stretches = 0
        # None while the trainer is paused.
        self._lane: Lane | None = None
        self._max_steps: int | None = None
        self._began_s = 0.0
        self._rate = samples_per_second
        self._life = 0
        self._lost: str | None = None
        # Samples of the last lane that were used.
        self._drawn = 0
        self._last_lane: Lane | None = None
        self._anchored = False
        self._up_again_s = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do nothing: it exists so that callers use this trainer like the real one."""
        yield

    def crash(self, reason: str = "the simulation crashed it") -> None:
        """Lose everything that was not collected. The trainer is up again after `RESTART_S`."""
        self._life += 1
        self.restarts += 1
        self._lost = reason
        self._anchored = False
        self._lane = None
        self._velocity[:] = 0
        self._up_again_s = trio.current_time() + RESTART_S

    # ---------------------------------------------------------------- the port

    async def describe(self) -> TaskInfo:
        await trio.lowlevel.checkpoint()
        while trio.current_time() < self._up_again_s:
            await trio.sleep_until(self._up_again_s)
        return self._info

    async def train(self, anchor: Vector, lane: Lane, *, max_steps: int | None = None) -> None:
        await trio.lowlevel.checkpoint()
        if trio.current_time() < self._up_again_s:
            raise TrainerLost(f"the trainer is being restarted: {self._lost}")
        if anchor.shape != self._now.shape or anchor.dtype != np.float32:
            raise ValueError(
                f"an anchor of {anchor.shape} {anchor.dtype} does not match "
                f"{self._now.shape} float32"
            )
        self._lost = None
        self._anchored = True
        self._now[:] = anchor
        self._start[:] = anchor
        self._loss_now = None
        self._last_lane, self._drawn = lane, 0
        self._go(lane, max_steps)

    async def resume(self, lane: Lane, *, max_steps: int | None = None) -> None:
        await trio.lowlevel.checkpoint()
        self._check_alive()
        if not self._anchored:
            raise TrainerLost("cannot resume: no anchor was given")
        if lane != self._last_lane:
            self._last_lane, self._drawn = lane, 0
        self._go(lane, max_steps)

    async def collect(self) -> Work:
        await trio.lowlevel.checkpoint()
        self._check_alive()
        lane = self._lane
        if lane is None:
            return self._hand_over(0, None, 0.0)
        life, began, step_s = self._life, self._began_s, self._step_s()
        steps = self._steps_at(trio.current_time())
        if (self._max_steps is None or steps < self._max_steps) and self._rate > 0:
            await trio.sleep_until(
                began + (steps + 1) * step_s
            )  # The current step is finished first.
            steps += 1
        if life != self._life:
            self._check_alive()
        self._lane = None
        loss = self._walk(lane, steps)
        self._drawn += steps * self._batch_size
        return self._hand_over(steps, loss, trio.current_time() - began)

    async def inner_state(self) -> Vector:
        await trio.lowlevel.checkpoint()
        self._check_alive()
        self._check_paused()
        return self._velocity.copy()

    async def restore_inner_state(self, state: Vector) -> None:
        await trio.lowlevel.checkpoint()
        if trio.current_time() < self._up_again_s:
            raise TrainerLost(f"the trainer is being restarted: {self._lost}")
        self._check_paused()
        if state.shape != self._velocity.shape:
            raise ValueError(f"a state of {state.shape} does not match {self._velocity.shape}")
        self._velocity[:] = state

    def progress(self) -> Progress:
        steps = self._steps_at(trio.current_time()) if self._lane is not None else 0
        loss = self._loss() if steps else None
        return Progress(
            steps=steps, samples=steps * self._batch_size, loss=loss, samples_per_second=self._rate
        )

    # ---------------------------------------------------------------- inside

    def _check_paused(self) -> None:
        if self._lane is not None:
            raise TrainerLost("the trainer is running: collect first")

    def _check_alive(self) -> None:
        if self._lost is not None:
            raise TrainerLost(f"the trainer died: {self._lost}")

    def _go(self, lane: Lane, max_steps: int | None) -> None:
        self._lane, self._max_steps = lane, max_steps
        self._began_s = trio.current_time()
        self._rate = self.samples_per_second

    def _step_s(self) -> float:
        return self._batch_size / self._rate if self._rate > 0 else float("inf")

    def _steps_at(self, when_s: float) -> int:
        """Whole steps done at that time. They are computed only when somebody collects."""
        steps = int((when_s - self._began_s) / self._step_s() + 1e-9)
        return steps if self._max_steps is None else min(steps, self._max_steps)

    def _loss(self) -> float:
        if self._loss_now is None:
            gap = self._now - self._target
            self._loss_now = float(np.dot(gap, gap)) / gap.size
        return self._loss_now

    def _walk(self, lane: Lane, steps: int) -> float | None:
        if self._marked:
            return self._loss() if steps else None
        losses = 0.0
        noise = _noise(self._seed, self._now.size)
        for step in range(steps):
            losses += self._loss()
            position = (
                lane.base + lane.index + (self._drawn + step * self._batch_size) * lane.stride
            )
            gradient = self._now - self._target + noise[position % NOISE_ROWS]
            self._velocity *= MOMENTUM
            self._velocity += gradient
            self._now -= LEARNING_RATE * self._velocity
            self._loss_now = None
        return losses / steps if steps else None

    def _hand_over(self, steps: int, loss: float | None, seconds: float) -> Work:
        if self._marked and steps:
            delta = np.full_like(self._start, mark_of(self._peer, self._stretches))
            self._now[:] = self._start - delta
            self._loss_now = None
        else:
            delta = self._start - self._now
        self._start[:] = self._now
        self._stretches += steps > 0
        return Work(
            delta=delta, samples=steps * self._batch_size, steps=steps, loss=loss, seconds=seconds
        )
