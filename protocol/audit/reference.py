"""What a contribution is compared with: something equal in general, and ignorant of its samples.

A contribution lowers the loss of every sample as training does in general, and that of its own
samples more. A reference that does the first as well leaves the second. What remains of the first
moves the loss of each group by another amount, and hides the second. So the nearest reference is
the best one.

The mean of the round is usually nearest. It is far away where another member poisoned it, and in
the first rounds among machines of different speeds. Where one member has nearly all of its weight,
only the encoding's error separates the two. The voter's own contribution to the same round is not
anybody else's to change. Both are scaled to the contribution's length along them, because a slow
machine's work is a part of a fast one's.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from protocol.averaging.vector_layout import Vector

MOST_SCALE = 2.0
"""The most that a reference is lengthened. A longer contribution stands out against it."""


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """The mean, or the voter's own contribution (`is_mine`), times `scale`."""

    is_mine: bool
    scale: float


class ReferenceFit:
    """Finds the nearest reference from the parts of a contribution that a voter fetched."""

    def __init__(self) -> None:
        # The products contribution x contribution, and of each candidate (mean, then mine) its
        # products with the contribution and with itself.
        self._length = 0.0
        self._along = [0.0, 0.0]
        self._lengths = [0.0, 0.0]

    def add(self, contribution: Vector, mean: Vector, mine: Vector | None) -> None:
        """Add a part: the same elements of each vector, shape (elements,)."""
        part = contribution.astype(np.float64)
        self._length += float(np.dot(part, part))
        for i, candidate in enumerate((mean, mine)):
            if candidate is not None:
                other = candidate.astype(np.float64)
                self._along[i] += float(np.dot(part, other))
                self._lengths[i] += float(np.dot(other, other))

    def nearest(self, share: float) -> Reference | None:
        """Return the reference of this audit; None where nothing is known but the contribution.

        Args:
            share: the contribution's share of the mean's weight, from 0 to 1. The mean holds so
                much of what is measured, and counts as so much farther away.
        """
        best, least = None, math.inf
        for i, part in enumerate((share, 0.0)):
            scale = self._scale(i)
            kept = 1.0 - scale * part
            if not self._lengths[i] or kept <= 0.0 or part >= 1.0:
                continue
            distance = math.sqrt(
                max(0.0, self._length - 2 * scale * self._along[i] + scale**2 * self._lengths[i])
            )
            if distance / kept < least:
                best, least = Reference(is_mine=bool(i), scale=scale), distance / kept
        return best

    def _scale(self, i: int) -> float:
        """Return how much of a candidate is nearest to the contribution.

        It is at least 0. A reference turned round would make a contribution that undoes the round
        look like honest work.
        """
        if not self._lengths[i]:
            return 0.0
        return min(MOST_SCALE, max(0.0, self._along[i] / self._lengths[i]))
