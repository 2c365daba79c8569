"""What a cheat offers in place of the work that its offer names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from protocol.averaging.vector_layout import Vector

HONEST = "honest"
POISON = "poison"
CLIP = 1.5
"""How much longer than the others' a contribution may be (`protocol/averaging/clip.py`)."""


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What a cheat can know when it makes its offer.

    `own` is the honest offer in its place, `others` are the others' offers of this round. `before`
    are its own offers of earlier rounds, the oldest first, and `mean` is the last certificate's.
    `partial` trains a share of the steps.
    """

    own: Vector
    others: Sequence[Vector]
    before: Sequence[Vector]
    mean: Vector
    partial: Callable[[float], Vector]
    rng: np.random.Generator


def poison(own: Vector, others: Sequence[Vector]) -> Vector:
    """Return the opposite of the others' mean, as long as the clip lets it be."""
    mean: Vector = np.asarray(np.mean(np.stack(others), axis=0), np.float32)
    length = float(np.linalg.norm(mean)) or 1.0
    return mean * np.float32(-CLIP * float(np.linalg.norm(own)) / length)


Work = Callable[[Situation], Vector]


def _noise(known: Situation) -> Vector:
    noise = known.rng.standard_normal(known.own.size, np.float32)
    return noise * np.float32(np.linalg.norm(known.own) / np.linalg.norm(noise))


def _hidden_harm(known: Situation) -> Vector:
    """Honest work, and the others' mean taken back twice: it undoes a round, and knows its data."""
    mean = np.mean(np.stack(known.others), axis=0, dtype=np.float32)
    return known.own - np.float32(2.0) * mean


WORKS: dict[str, Work] = {
    "half": lambda known: known.partial(0.5),
    "tenth": lambda known: known.partial(0.1),
    "zeros": lambda known: np.zeros_like(known.own),
    "noise": _noise,
    "negated": lambda known: -known.own,
    "stale": lambda known: known.before[0],
    "foreign": lambda known: known.others[0],
    "mean": lambda known: known.mean,
    "hidden": _hidden_harm,
}
KINDS = (HONEST, *WORKS)
