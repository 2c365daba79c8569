"""Windows of measurements, of which one bad sample changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

WINDOW = 5
"""Samples of a window: two may be wrong, and three that agree decide."""

SETTLING = 3
"""Samples before a window has a result."""


class SampleWindow(msgspec.Struct, frozen=True, kw_only=True):
    """The last samples of one quantity, the newest last."""

    samples: tuple[int, ...] = ()

    def add(self, sample: int) -> SampleWindow:
        """Return the window with one more sample."""
        return SampleWindow(samples=(*self.samples, sample)[-WINDOW:])

    @property
    def settled(self) -> int | None:
        """The median, or None before `SETTLING` samples."""
        return median(self.samples) if len(self.samples) >= SETTLING else None

    @property
    def spread(self) -> int:
        """The median distance from the median: jitter that one bad sample does not change."""
        middle = median(self.samples) if self.samples else 0
        return median([abs(sample - middle) for sample in self.samples]) if self.samples else 0


def median(values: Sequence[int]) -> int:
    """Return the middle value, the lower one of two. Raises `ValueError` for no values."""
    if not values:
        raise ValueError("no median of nothing")
    return sorted(values)[(len(values) - 1) // 2]
