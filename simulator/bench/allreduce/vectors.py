"""The vectors that the peers average, and their exact mean."""

from __future__ import annotations

import numpy as np

from protocol.averaging.vector_layout import Vector
from protocol.codec import entry_named

SEED = 41
# Rounds differ by a power of two, so that the result of an earlier round is wrong in a later one.
SCALES = 4


def vector_of(peer: int, elements: int) -> Vector:
    """What a peer gives in round 0: float32 in [-1, 1), shape (elements,)."""
    values = np.random.Generator(np.random.PCG64([SEED, peer])).random(elements, dtype=np.float32)
    values *= np.float32(2.0)
    values -= np.float32(1.0)
    return values


def scale_of(number: int) -> np.float32:
    """The factor of every vector in round `number`, exact in float32 as is the mean's multiple."""
    return np.float32(2.0 ** -(number % SCALES))


def exact_mean(peers: int, elements: int) -> Vector:
    """The mean of all vectors of round 0, added in float64 and rounded once, shape (elements,)."""
    total = np.zeros(elements, np.float64)
    for peer in range(peers):
        total += vector_of(peer, elements)
    total /= peers
    return total.astype(np.float32)


HIVEMIND_INT8_ERROR = 2.5 / 127


def tolerance(codec: str) -> float:
    """The greatest error of a right result, for vectors in [-1, 1).

    It is what the encodings of the contributions and of the mean may lose, and rounding.
    """
    bound = 2 * entry_named(codec).max_error + 2.0**-20
    return max(bound, HIVEMIND_INT8_ERROR) if codec == "int8" else bound
