"""Contributions that can be recognized: which vector a member hands over follows from who it is and
which stretch of training it was.

Nothing is learned. A stretch is a vector of random float32 in [-1, 1) that anybody can make again
from (seed, member, life, stretch), so that what a certificate claims to have averaged can be
averaged once more by somebody who only read the certificate.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import trio

from protocol.averaging.vector_layout import Vector
from protocol.ports.trainer import Lane, ParameterSpec, Progress, TaskInfo, Work

SAMPLES = (96, 61, 128, 33)
"""Samples of one stretch, by member modulo four: different, so that wrong weights show; not all powers of two, so that rounding is there."""

# Vectors kept to be asked for again: an audit needs each twice.
STRETCHES_KEPT = 12


def task_info(elements: int) -> TaskInfo:
    """A task of one tensor."""
    spec = ParameterSpec(name="content", shape=(elements,), init="uniform", bound=1.0)
    return TaskInfo(
        parameters=elements, specs=(spec,), dataset_size=1 << 20, device="made up", threads=1
    )


def samples_of(member: int) -> int:
    """The weight of one stretch of a member."""
    return SAMPLES[member % len(SAMPLES)]


@lru_cache(maxsize=STRETCHES_KEPT)
def vector_of(seed: int, member: int, life: int, stretch: int, elements: int) -> Vector:
    """The pseudo-gradient of one stretch, shape (elements,); read-only. numpy keeps the streams of
    its bit generators (NEP 19).
    """
    values = np.random.Generator(np.random.PCG64([seed, member, life, stretch])).random(
        elements, dtype=np.float32
    )
    values *= np.float32(2.0)
    values -= np.float32(1.0)
    values.flags.writeable = False
    return values


class ContentTrainer:
    """Satisfies `ports.Trainer` in real time, without a thread or a device.

    `told(stretch, samples)` is called before a stretch is handed over.
    """

    restarts = 0

    def __init__(
        self, *, seed: int, member: int, life: int, elements: int, told: Callable[[int, int], None]
    ) -> None:
        self._seed = seed
        self._member = member
        self._life = life
        self._elements = elements
        self._told = told
        self._stretch = 0
        self._began_s: float | None = None  # None: paused
        self._nothing = np.zeros(elements, np.float32)

    async def describe(self) -> TaskInfo:
        await trio.lowlevel.checkpoint()
        return task_info(self._elements)

    async def train(self, anchor: Vector, lane: Lane, *, max_steps: int | None = None) -> None:
        await self.resume(lane, max_steps=max_steps)

    async def resume(self, lane: Lane, *, max_steps: int | None = None) -> None:
        await trio.lowlevel.checkpoint()
        self._began_s = trio.current_time()

    async def collect(self) -> Work:
        await trio.lowlevel.checkpoint()
        if self._began_s is None:
            return Work(delta=self._nothing, samples=0, steps=0, loss=None, seconds=0.0)
        seconds, self._began_s = trio.current_time() - self._began_s, None
        self._stretch += 1
        samples = samples_of(self._member)
        self._told(self._stretch, samples)
        delta = vector_of(self._seed, self._member, self._life, self._stretch, self._elements)
        return Work(delta=delta, samples=samples, steps=1, loss=1.0, seconds=seconds)

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
