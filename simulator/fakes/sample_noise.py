"""The samples of the simulated task: each one pulls the parameters towards a point of its own.

The loss of a sample is |x - target - pattern|^2 / parameters, and a step follows the mean gradient
of its batch. So a step lowers the loss of the samples that it draws more than that of others, as in
a real task, and audits can tell whose work was trained on what.

A sample's pattern follows from its position alone. Patterns repeat along the parameters, so that
every slice of a contribution differs from peer to peer at the cost of one addition.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from protocol.averaging.vector_layout import Vector
from protocol.ports.trainer import Positions

NOISE = np.float32(0.05)
# With fewer elements than samples in a few steps, a sample's pattern is lost among the others'.
PATTERN_ELEMENTS = 256
# Enough that a lane of some rounds rarely draws one twice, and 4 MB in all.
PATTERNS = 4096
# 2^64 divided by the golden ratio: neighbours, and steps of any stride, land far apart.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(64 - 12)


@lru_cache(maxsize=4)
def _patterns(seed: int, elements: int) -> Vector:
    """The patterns of a run, shape (PATTERNS, elements), made once for all trainers of a world."""
    shared = np.random.Generator(np.random.PCG64([seed, elements]))
    return shared.standard_normal((PATTERNS, elements), dtype=np.float32) * NOISE


@lru_cache(maxsize=4)
def _lengths(seed: int, parameters: int) -> Vector:
    """The squared length of each pattern along the parameters, shape (PATTERNS,)."""
    patterns = _patterns(seed, min(parameters, PATTERN_ELEMENTS))
    times = np.bincount(np.arange(parameters) % patterns.shape[1])
    lengths: Vector = (np.square(patterns) @ times).astype(np.float32)
    return lengths


def _numbers(positions: Positions) -> npt.NDArray[np.intp]:
    """Return the number of each position's pattern, in the shape of `positions`."""
    return (positions.astype(np.uint64) * _MULTIPLIER >> _SHIFT).astype(np.intp)


class SampleNoise:
    """The samples of one run, for a model of `parameters` elements."""

    def __init__(self, *, seed: int, parameters: int) -> None:
        self._seed = seed
        self._elements = min(parameters, PATTERN_ELEMENTS)
        self._parameters = parameters

    def pull(self, gradient: Vector, positions: Positions) -> None:
        """Subtract the mean pattern of a batch from `gradient`, shape (parameters,), in place."""
        mean = _patterns(self._seed, self._elements)[_numbers(positions)].mean(axis=0)
        whole = gradient.size // self._elements * self._elements
        gradient[:whole].reshape(-1, self._elements)[:] -= mean
        gradient[whole:] -= mean[: gradient.size - whole]

    def losses(self, gap: Vector, positions: Positions) -> tuple[float, ...]:
        """Return the mean loss of each group of samples.

        Args:
            gap: parameters minus target, shape (parameters,).
            positions: shape (groups, samples).
        """
        patterns = _patterns(self._seed, self._elements)
        folded = np.bincount(np.arange(gap.size) % self._elements, weights=gap).astype(np.float32)
        losses = _lengths(self._seed, self._parameters) - np.float32(2.0) * (patterns @ folded)
        losses += np.dot(gap, gap)
        grouped = losses[_numbers(positions)].mean(axis=1, dtype=np.float64) / gap.size
        return tuple(grouped.tolist())
