"""What the peers average, and the exact mean of it."""

from __future__ import annotations

import numpy as np

from protocol.averaging.vector_layout import Vector

SEED = 41
# Rounds differ by a power of two, so that a result of an earlier round is a wrong one.
SCALES = 4


def vector_of(peer: int, elements: int) -> Vector:
    """What a peer gives in round 0, float32 in [-1, 1), shape (elements,)."""
    values = np.random.Generator(np.random.PCG64([SEED, peer])).random(elements, dtype=np.float32)
    values *= np.float32(2.0)
    values -= np.float32(1.0)
    return values


def scale_of(number: int) -> np.float32:
    """What round `number` multiplies every vector by: exact in float32, and so is the mean's
    multiple.
    """
    return np.float32(2.0 ** -(number % SCALES))


def exact_mean(peers: int, elements: int) -> Vector:
    """The mean of all vectors of round 0, added in float64 and rounded once, shape (elements,)."""
    total = np.zeros(elements, np.float64)
    for peer in range(peers):
        total += vector_of(peer, elements)
    total /= peers
    return total.astype(np.float32)


def tolerance(codec: str) -> float:
    """The greatest error a right result may have, for vectors in [-1, 1): what the contributions'
    encodings and the mean's may lose, and rounding.
    """
    steps = {
        "float32": 2.0**-20,
        "float16": 2.0**-10,
        "bfloat16": 2.0**-7,
        "int8": 2.5 / 127,
        "int4": 2.5 / 7,
    }
    return steps[codec]
