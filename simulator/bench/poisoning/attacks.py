"""What an attacker offers in place of its work.

Each attacker is a voter and sees the others' contributions before it makes its own, which is more
than a real one can. It claims the most samples that its run allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from protocol.averaging.vector_layout import Vector

# Long enough to reach every bound, and short enough for float32.
LENGTH = 1e6
MOST_SAMPLES = 1_000_000

Attack = Callable[[Vector, Sequence[Vector], np.random.Generator], Vector]
"""(its own work, the others' work, a generator that is the same in every round) to its offer."""


def sign_flip(own: Vector, others: Sequence[Vector], random: np.random.Generator) -> Vector:
    """The opposite of the others' mean, in every chunk as long as the clip allows."""
    return _lengthened(-np.mean(np.stack(others), axis=0))


def noise(own: Vector, others: Sequence[Vector], random: np.random.Generator) -> Vector:
    return _lengthened(np.random.default_rng().standard_normal(own.size, np.float32))


def scaled(own: Vector, others: Sequence[Vector], random: np.random.Generator) -> Vector:
    """Its own work, a thousand times as long."""
    return own * np.float32(1000.0)


def zeros(own: Vector, others: Sequence[Vector], random: np.random.Generator) -> Vector:
    return np.zeros_like(own)


def drift(own: Vector, others: Sequence[Vector], random: np.random.Generator) -> Vector:
    """One direction, the same in every round."""
    return _lengthened(random.standard_normal(own.size, np.float32))


def spike(own: Vector, others: Sequence[Vector], random: np.random.Generator) -> Vector:
    """All of the length in one element."""
    made = np.zeros_like(own)
    made[own.size // 2] = np.float32(LENGTH)
    return made


def _lengthened(vector: Vector) -> Vector:
    length = float(np.linalg.norm(vector.astype(np.float64))) or 1.0
    made: Vector = (vector * (LENGTH / length)).astype(np.float32)
    return made


ATTACKS: dict[str, Attack] = {
    "flip": sign_flip,
    "noise": noise,
    "scaled": scaled,
    "zeros": zeros,
    "drift": drift,
    "spike": spike,
}
