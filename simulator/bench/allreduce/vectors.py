"""What the peers average, and the exact mean of it."""

from __future__ import annotations

import numpy as np

from protocol.averaging.vector_layout import Vector
from protocol.codec import entry_named

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


HIVEMIND_INT8_ERROR = 2.5 / 127


def tolerance(codec: str) -> float:
    """Return the largest error of a right result, for vectors in [-1, 1).

    The contributions and then the mean lose what the codec loses, and sums round. hivemind calls its uniform quantization int8 too: it
    loses more than the codec of this name.
    """
    bound = 2 * entry_named(codec).max_error + 2.0**-20
    return max(bound, HIVEMIND_INT8_ERROR) if codec == "int8" else bound
