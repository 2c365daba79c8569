"""A trainer without a device: it moves towards a point, one step per so many virtual seconds.

What it does depends on the anchor, the lane, the inner state and the time it is given, and on
nothing else. `quadratic_point.py` has the arithmetic.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import trio

from protocol.averaging.vector_layout import Vector
from protocol.identity import PeerId
from protocol.ports.trainer import (
    Evaluation,
    GroupLosses,
    HeldOutShare,
    Lane,
    ParameterSpec,
    Positions,
    Progress,
    TaskInfo,
    TrainerLost,
    Work,
)
from protocol.run.data_order import lane_positions
from protocol.run.task_digest import SourcePart, TaskDigest, TensorPart
from simulator.fakes.quadratic_point import QuadraticPoint, mark_of
from simulator.fakes.step_clock import StepClock

__all__ = ["RESTART_S", "QuadraticTrainer", "mark_of"]

DATASET_SIZE = 1 << 20
# The samples that all peers score together.
HELD_OUT_SIZE = 256
# A forward pass takes about a third of a training step.
EVALUATION_SPEED = 3.0
# The first backoff of the real supervisor.
RESTART_S = 1.0


class QuadraticTrainer:
    """A `ports.Trainer` in virtual time.

    Steps are computed when somebody asks for their work. A change of `samples_per_second` counts
    from the next command that trains.
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
        evaluation_speed: float | None = None,
    ) -> None:
        """Make a trainer. Work of trainers with different `version`s must not be averaged.

        It scores `evaluation_speed` times as many samples in a second as it trains; by default
        `EVALUATION_SPEED`.
        """
        self._evaluation_speed = evaluation_speed
        self.samples_per_second = samples_per_second
        self.restarts = 0
        self._peer = peer
        self._batch_size = batch_size
        self.point = QuadraticPoint(seed=seed, peer=peer, parameters=parameters, marked=marked)
        self._info = TaskInfo(
            parameters=parameters,
            specs=(ParameterSpec(name="point", shape=(parameters,), init="uniform", bound=1.0),),
            dataset_size=DATASET_SIZE,
            device="simulated",
            threads=1,
            held_out=HELD_OUT_SIZE,
            trained=DATASET_SIZE,
            task=TaskDigest(
                parameters=(TensorPart(name="point", shape=(parameters,), dtype="float32"),),
                dataset_size=DATASET_SIZE,
                source=(SourcePart(name="simulated task", digest=str(version).encode()),),
            ),
        )
        # The place in the run's schedules, for tests: this trainer's rate is constant.
        self.position = 0
        self._clock = StepClock(batch_size, samples_per_second)
        self._lane = Lane(base=0, index=0, stride=1)
        # Samples of the lane that were used.
        self._drawn = 0
        # Where the step in progress draws, if another lane came meanwhile.
        self._drawing: tuple[Lane, int] | None = None
        # When the work began.
        self._since_s = 0.0
        self._life = 0
        self._lost: str | None = None
        self._anchored = False
        self._up_again_s = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do nothing: it exists so that callers use this trainer like the real one."""
        yield

    def crash(self, reason: str = "the simulation crashed it") -> None:
        """Lose everything that was not handed over. It is up again after `RESTART_S`."""
        self._life += 1
        self.restarts += 1
        self._lost = reason
        self._anchored = self._clock.running = False
        self.point.velocity[:] = 0
        self._up_again_s = trio.current_time() + RESTART_S

    # ---------------------------------------------------------------- the port

    async def describe(self) -> TaskInfo:
        await trio.lowlevel.checkpoint()
        while trio.current_time() < self._up_again_s:
            await trio.sleep_until(self._up_again_s)
        return self._info

    async def given_parameters(self) -> Vector:
        raise TrainerLost("the point's task gives no values")

    async def train(
        self, anchor: Vector, lane: Lane, *, position: int = 0, max_steps: int | None = None
    ) -> None:
        await trio.lowlevel.checkpoint()
        self._check_up()
        self._check_shape(anchor)
        self._lost = None
        self._anchored = True
        self.point.place(anchor)
        self._lane, self._drawn, self._drawing = lane, 0, None
        self.position, self._clock.running = position, False
        self._go(max_steps)

    async def resume(
        self, lane: Lane, *, position: int | None = None, max_steps: int | None = None
    ) -> None:
        await trio.lowlevel.checkpoint()
        self._check_anchored("resume")
        self._advance()
        self._drawing = None
        self._take_lane(lane)
        self.position = self.position if position is None else position
        self._go(max_steps)

    async def collect(self) -> Work:
        await trio.lowlevel.checkpoint()
        self._check_alive()
        life = self._life
        steps = self._clock.steps
        if self._clock.in_step and self._clock.rate > 0:
            # The current step is finished first.
            await trio.sleep_until(self._clock.next_end_s())
            steps += 1
            if life != self._life:
                self._check_alive()
        self._advance(steps)
        work = self._work()
        self._clock.running, self._drawing = False, None
        return work

    async def hand_over(self, lane: Lane, *, position: int | None = None) -> Work:
        await trio.lowlevel.checkpoint()
        self._check_alive()
        self._check_anchored("hand over")
        self._advance()
        work = self._work()
        self._take_lane(lane)
        self.position = self.position if position is None else position
        self._clock.go_on(self.samples_per_second)
        return work

    async def shift(
        self, local: Vector, lane: Lane, *, position: int = 0, max_steps: int | None = None
    ) -> None:
        await trio.lowlevel.checkpoint()
        self._check_anchored("shift")
        self._check_shape(local)
        self._advance()
        in_step = self._clock.in_step
        self.point.shift(local, in_step=in_step)
        self._take_lane(lane)
        self.position = position + self.point.steps * self._batch_size
        if in_step:
            self._clock.renew(self.samples_per_second, max_steps)
        else:
            self._go(max_steps)

    async def evaluate(self, parameters: Vector, share: HeldOutShare) -> Evaluation:
        await trio.lowlevel.checkpoint()
        self._check_up()
        self._check_shape(parameters)
        samples = len(range(share.index, HELD_OUT_SIZE, share.count))
        loss = self.point.score(parameters)
        seconds = await self._score(samples)
        return Evaluation(loss=loss, samples=samples, seconds=seconds)

    async def group_losses(self, parameters: Vector, positions: Positions) -> GroupLosses:
        await trio.lowlevel.checkpoint()
        self._check_up()
        self._check_shape(parameters)
        losses = self.point.group_losses(parameters, positions)
        return GroupLosses(losses=losses, seconds=await self._score(positions.size))

    async def _score(self, samples: int) -> float:
        """Spend the time that scoring takes, and return it. No step makes progress meanwhile."""
        life = self._life
        speed = self._evaluation_speed or EVALUATION_SPEED
        seconds = samples / (speed * self.samples_per_second or 1.0)
        self._advance()
        self._clock.delay(seconds)
        await trio.sleep(seconds)
        if life != self._life:
            raise TrainerLost(f"the trainer died: {self._lost}")
        return seconds

    async def release_work(self) -> None:
        await trio.lowlevel.checkpoint()

    async def inner_state(self) -> Vector:
        await trio.lowlevel.checkpoint()
        self._check_alive()
        self._advance()
        return self.point.velocity.copy()

    async def restore_inner_state(self, state: Vector) -> None:
        await trio.lowlevel.checkpoint()
        self._check_up()
        self._check_paused()
        if state.shape != self.point.velocity.shape:
            raise ValueError(f"a state of {state.shape} does not match {self.point.velocity.shape}")
        self.point.velocity[:] = state

    def progress(self) -> Progress:
        steps = self._clock.steps
        return Progress(
            steps=steps,
            samples=steps * self._batch_size,
            loss=self.point.loss() if steps else None,
            samples_per_second=self._clock.rate,
        )

    # ---------------------------------------------------------------- inside

    def _check_up(self) -> None:
        if trio.current_time() < self._up_again_s:
            raise TrainerLost(f"the trainer is being restarted: {self._lost}")

    def _check_paused(self) -> None:
        if self._clock.running:
            raise TrainerLost("the trainer is running: collect first")

    def _check_alive(self) -> None:
        if self._lost is not None:
            raise TrainerLost(f"the trainer died: {self._lost}")

    def _check_anchored(self, what: str) -> None:
        self._check_alive()
        if not self._anchored:
            raise TrainerLost(f"cannot {what}: no anchor was given")

    def _check_shape(self, vector: Vector) -> None:
        if vector.shape != self.point.now.shape or vector.dtype != np.float32:
            raise ValueError(
                f"a vector of {vector.shape} {vector.dtype} does not match"
                f" {self.point.now.shape} float32"
            )

    def _take_lane(self, lane: Lane) -> None:
        """Draw from `lane` after the step in progress."""
        if lane == self._lane:
            return
        if self._clock.in_step and self._drawing is None:
            self._drawing = self._lane, self._drawn
        self._lane, self._drawn = lane, 0

    def _go(self, max_steps: int | None) -> None:
        """Begin a stretch now."""
        if not self._clock.running:
            self._since_s = trio.current_time()
        self._clock.begin(self.samples_per_second, max_steps)

    def _advance(self, steps: int | None = None) -> None:
        """Compute the steps that are done, or the first `steps` of the stretch."""
        steps = self._clock.steps if steps is None else steps
        while self._clock.computed < steps:
            self._clock.computed += 1
            lane, first = self._draw()
            self.point.step(lane_positions(lane, first, self._batch_size))
            self.position += self._batch_size

    def _draw(self) -> tuple[Lane, int]:
        """Draw one batch. Returns the lane, and the number of its first sample in it."""
        if self._drawing is not None:
            drawing, self._drawing = self._drawing, None
            return drawing
        first = self._drawn
        self._drawn += self._batch_size
        return self._lane, first

    def _work(self) -> Work:
        now_s = trio.current_time()
        steps = self.point.steps
        delta, loss = self.point.hand_over()
        seconds = now_s - self._since_s if self._clock.running else 0.0
        self._since_s = now_s
        drawing = self._clock.in_step and self._drawing is None
        return Work(
            delta=delta,
            samples=steps * self._batch_size,
            steps=steps,
            loss=loss,
            seconds=seconds,
            drawn=self._drawn + drawing * self._batch_size,
        )
