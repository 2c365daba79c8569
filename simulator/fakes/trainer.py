"""A trainer without a device: it walks towards a point, a step every so many virtual seconds, the
same way every time.

The loss is |x - target|^2 / parameters, the target a point all peers share plus a little of each
peer's own, the gradient noisy in a way that follows from the sample's position alone. With momentum
as its inner state it behaves as a real one does towards everything outside: what it does depends on
the anchor, the lane, the inner state and the time it is given, and on nothing else.

With `marked=True` a stretch moves the parameters by a constant that names peer and stretch
(`mark_of`), so that a test can tell whose work is in a mean.
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
# Of the peers' own targets around the shared one, which lies within [-1, 1].
PEER_SPREAD = np.float32(0.05)
NOISE = np.float32(0.05)
# Positions share so many rows of noise: cheap, and still different from step to step.
NOISE_ROWS = 64
DATASET_SIZE = 1 << 20
RESTART_S = 1.0  # the real supervisor's first backoff
# Marks are multiples of it up to 2^12: exact in float32.
MARK_UNIT = 2.0**-12


def mark_of(peer: PeerId, stretch: int) -> float:
    """The constant that stands for stretch number `stretch` (from 0) of `peer`."""
    return MARK_UNIT * (1 + zlib.crc32(peer.encode()) % 4093 + 4096 * (stretch % 4096))


@lru_cache(maxsize=4)
def _target(seed: int, parameters: int) -> Vector:
    """The point that all peers of a run share.

    The same for every trainer of a world, so made once.
    """
    shared = np.random.Generator(np.random.PCG64(seed))
    return (shared.random(parameters, dtype=np.float32) - np.float32(0.5)) * np.float32(2.0)


@lru_cache(maxsize=4)
def _noise(seed: int, parameters: int) -> Vector:
    """The rows of noise, shape (NOISE_ROWS, parameters): as large as 64 models, and nothing that a
    marked world needs.
    """
    shared = np.random.Generator(np.random.PCG64(seed))
    shared.random(parameters, dtype=np.float32)  # the target's
    return shared.standard_normal((NOISE_ROWS, parameters), dtype=np.float32) * NOISE


class QuadraticTrainer:
    """Satisfies `ports.Trainer`.

    `samples_per_second` may be changed; it counts from the next `train` or `resume`.
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
        """`version` is the task's: trainers of different ones are not to be averaged."""
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
            device="made up",
            threads=1,
            task=TaskDigest(
                parameters=(TensorPart(name="point", shape=(parameters,), dtype="float32"),),
                dataset_size=DATASET_SIZE,
                source=(SourcePart(name="task made up", digest=str(version).encode()),),
            ),
        )
        self._start = np.zeros(parameters, np.float32)
        self._now = np.zeros(parameters, np.float32)
        self._velocity = np.zeros(parameters, np.float32)
        self._loss_now: float | None = None  # at `_now`; every beacon asks for it
        self._stretches = 0
        self._lane: Lane | None = None  # None: paused
        self._max_steps: int | None = None
        self._began_s = 0.0
        self._rate = samples_per_second
        self._life = 0
        self._lost: str | None = None
        self._drawn = 0  # samples of the last lane that were used
        self._last_lane: Lane | None = None
        self._anchored = False
        self._up_again_s = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Nothing to start; here so that it is used as the real one is."""
        yield

    def crash(self, reason: str = "the simulation said so") -> None:
        """The trainer dies: everything not collected is gone, and it is up again after `RESTART_S`."""
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
                f"an anchor of {anchor.shape} {anchor.dtype} does not fit {self._now.shape} float32"
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
            raise TrainerLost("there is nothing to resume: no anchor was given")
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
            await trio.sleep_until(began + (steps + 1) * step_s)  # the step under way is finished
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
            raise ValueError(f"a state of {state.shape} does not fit {self._velocity.shape}")
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
            raise TrainerLost("it is training: collect first")

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
        """Whole steps done by then: they are only walked when somebody collects."""
        steps = int((when_s - self._began_s) / self._step_s() + 1e-9)
        return steps if self._max_steps is None else min(steps, self._max_steps)

    def _loss(self) -> float:
        if self._loss_now is None:
            gap = self._now - self._target
            self._loss_now = float(np.dot(gap, gap)) / gap.size
        return self._loss_now

    def _walk(self, lane: Lane, steps: int) -> float | None:
        if self._marked:
            return self._loss() if steps else None  # where it walks is not kept
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
