"""Windows of measurements: what the last few come to, so that one bad sample changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

# samples: two may be wrong, and three that agree are believed.
WINDOW = 5
SETTLING = 3  # samples before a window says anything


class SampleWindow(msgspec.Struct, frozen=True, kw_only=True):
    """The last samples of one quantity, the newest last."""

    samples: tuple[int, ...] = ()

    def add(self, sample: int) -> SampleWindow:
        return SampleWindow(samples=(*self.samples, sample)[-WINDOW:])

    @property
    def settled(self) -> int | None:
        """The median; None before `SETTLING` samples."""
        return median(self.samples) if len(self.samples) >= SETTLING else None

    @property
    def spread(self) -> int:
        """The median distance from the median: jitter, as one bad sample does not change it."""
        middle = median(self.samples) if self.samples else 0
        return median([abs(sample - middle) for sample in self.samples]) if self.samples else 0


def median(values: Sequence[int]) -> int:
    """The middle value, the lower of two. Raises `ValueError` for none."""
    if not values:
        raise ValueError("no median of nothing")
    return sorted(values)[(len(values) - 1) // 2]
