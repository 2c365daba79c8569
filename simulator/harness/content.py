"""Contributions that can be recognized: a vector follows from its member and its stretch.

Nothing is learned. A stretch is a vector of random float32 in [-1, 1) that anybody can make again
from (seed, member, life, stretch). So the mean that a certificate claims can be computed again by a
process that only read the certificate.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import trio

from protocol.averaging.vector_layout import Vector
from protocol.ports.trainer import (
    Evaluation,
    EvaluationFailed,
    GroupLosses,
    HeldOutShare,
    Lane,
    ParameterSpec,
    Positions,
    Progress,
    TaskInfo,
    Work,
)

SAMPLES = (96, 61, 128, 33)
"""Samples of one stretch, by member modulo four.

They differ, so that wrong weights show. Not all are powers of two, so that rounding occurs.
"""

# The number of vectors that are cached: an audit needs each twice.
STRETCHES_KEPT = 12


def task_info(elements: int) -> TaskInfo:
    """A task of one tensor."""
    spec = ParameterSpec(name="content", shape=(elements,), init="uniform", bound=1.0)
    return TaskInfo(
        parameters=elements, specs=(spec,), dataset_size=1 << 20, device="simulated", threads=1
    )


def samples_of(member: int) -> int:
    """The weight of one stretch of a member."""
    return SAMPLES[member % len(SAMPLES)]


@lru_cache(maxsize=STRETCHES_KEPT)
def vector_of(seed: int, member: int, life: int, stretch: int, elements: int) -> Vector:
    """The pseudo-gradient of one stretch, shape (elements,), read-only.

    numpy keeps the streams of its bit generators stable (NEP 19).
    """
    values = np.random.Generator(np.random.PCG64([seed, member, life, stretch])).random(
        elements, dtype=np.float32
    )
    values *= np.float32(2.0)
    values -= np.float32(1.0)
    values.flags.writeable = False
    return values


class ContentTrainer:
    """A `ports.Trainer` in real time, without a thread or a device.

    `report(stretch, samples)` is called before a stretch is handed over.
    """

    restarts = 0

    def __init__(
        self,
        *,
        seed: int,
        member: int,
        life: int,
        elements: int,
        report: Callable[[int, int], None],
    ) -> None:
        self._seed = seed
        self._member = member
        self._life = life
        self._elements = elements
        self._report = report
        self._stretch = 0
        # None while the trainer is paused.
        self._began_s: float | None = None
        self._nothing = np.zeros(elements, np.float32)

    async def describe(self) -> TaskInfo:
        await trio.lowlevel.checkpoint()
        return task_info(self._elements)

    async def given_parameters(self) -> Vector:
        await trio.lowlevel.checkpoint()
        return self._nothing

    async def train(
        self, anchor: Vector, lane: Lane, *, position: int = 0, max_steps: int | None = None
    ) -> None:
        await self.resume(lane, max_steps=max_steps)

    async def resume(
        self, lane: Lane, *, position: int | None = None, max_steps: int | None = None
    ) -> None:
        await trio.lowlevel.checkpoint()
        self._began_s = trio.current_time()

    async def collect(self) -> Work:
        await trio.lowlevel.checkpoint()
        if self._began_s is None:
            return Work(delta=self._nothing, samples=0, steps=0, loss=None, seconds=0.0)
        seconds, self._began_s = trio.current_time() - self._began_s, None
        self._stretch += 1
        samples = samples_of(self._member)
        self._report(self._stretch, samples)
        delta = vector_of(self._seed, self._member, self._life, self._stretch, self._elements)
        return Work(delta=delta, samples=samples, steps=1, loss=1.0, seconds=seconds)

    async def hand_over(self, lane: Lane, *, position: int | None = None) -> Work:
        training = self._began_s is not None
        work = await self.collect()
        self._began_s = trio.current_time() if training else None
        return work

    async def shift(
        self, local: Vector, lane: Lane, *, position: int = 0, max_steps: int | None = None
    ) -> None:
        """Train on: a stretch does not depend on its anchor."""
        await trio.lowlevel.checkpoint()
        if self._began_s is None:
            self._began_s = trio.current_time()

    async def evaluate(self, parameters: Vector, share: HeldOutShare) -> Evaluation:
        await trio.lowlevel.checkpoint()
        raise EvaluationFailed("the content of a harness cannot be scored")

    async def release_work(self) -> None:
        await trio.lowlevel.checkpoint()

    async def group_losses(self, parameters: Vector, positions: Positions) -> GroupLosses:
        await trio.lowlevel.checkpoint()
        raise EvaluationFailed("the content of a harness cannot be scored")

    async def inner_state(self) -> Vector:
        await trio.lowlevel.checkpoint()
        return np.zeros(0, np.float32)

    async def restore_inner_state(self, state: Vector) -> None:
        await trio.lowlevel.checkpoint()

    def progress(self) -> Progress:
        running = self._began_s is not None
        return Progress(
            steps=int(running),
            samples=samples_of(self._member) if running else 0,
            loss=1.0 if running else None,
            samples_per_second=0.0,
        )
