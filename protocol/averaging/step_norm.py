"""The length of a round's step: measured, recorded in every vote, and bounded.

The step norm of a certificate is the L2 norm of the decoded mean before the outer step, per second
of the round's recorded length. The squares of each chunk are added as `clip.py` says, and the
chunks' sums in float64, in order.

A mean longer than 3 times the usual one is scaled down to that. It is not refused: the same offers
would come back, and no round would ever end. The usual step norm is the lower median of those of
the last 32 certificates; before 8 of them there is none. Merges have no step and do not count.

Without a usual norm, a mean is at most `MOST_NORM` long, so that no state becomes infinite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from protocol.averaging.clip import Doubles, chunk_energies
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.averaging.weights import lower_median
from protocol.codec import loops
from protocol.codec.kernel import KernelLoops

# The certificates whose step norms make the usual one, and how many it takes.
NORMS_KEPT = 32
LEAST_NORMS = 8
# How far a step may exceed the usual one. A learning rate that rises linearly from zero makes the
# ninth step 2.25 times as long as the median of the first eight.
MOST_USUAL = 3.0

MOST_NORM = 2.0**64
"""The longest mean where no usual one is known.

With a momentum below 0.99 and a learning rate below 1e10, the state stays finite. No training of
finite losses moves as far.
"""


def energies(values: Vector) -> Doubles:
    """Return the energy of each chunk as `chunk_energies` does, compiled where that is possible."""
    compiled = _loops() if values.flags.c_contiguous and values.dtype == np.float32 else None
    if compiled is None:
        return chunk_energies(values)
    return compiled.energies(values)


def add_in_order(total: float, parts: Doubles) -> float:
    """Add the chunks' energies to `total` one by one."""
    for part in parts.tolist():
        total += part
    return total


def usual_norm(norms: Sequence[float]) -> float:
    """Return the usual step norm per second.

    Args:
        norms: the step norms of the last certificates, oldest first; 0.0 for merges.

    Returns:
        The lower median of those above zero among the last `NORMS_KEPT`; 0.0 below `LEAST_NORMS`
        of them.
    """
    steps = [norm for norm in norms[-NORMS_KEPT:] if norm > 0.0]
    return lower_median(steps) if len(steps) >= LEAST_NORMS else 0.0


def limit_step(energy: float, usual: float) -> tuple[float, float]:
    """Return (factor, norm): by what a mean is multiplied, and its length then.

    Args:
        energy: the sum of the decoded mean's squares.
        usual: the usual length of a step of this round; 0.0 where it is not known.
    """
    norm = math.sqrt(energy)
    most = MOST_USUAL * usual if usual > 0.0 else MOST_NORM
    return (most / norm, most) if norm > most else (1.0, norm)


@cache
def _loops() -> KernelLoops | None:
    """The compiled loops, if they make numpy's energies on a sample."""
    compiled = loops()
    if compiled is None:
        return None
    bits = np.random.Generator(np.random.PCG64(6)).integers(
        0, 1 << 32, CHUNK_ELEMENTS + 301, np.uint32
    )
    values = (bits & np.uint32(0xFEFFFFFF)).view(np.float32)
    same = compiled.energies(values).tobytes() == chunk_energies(values).tobytes()
    return compiled if same else None
