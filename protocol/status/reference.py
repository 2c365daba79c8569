"""A reference curve: a held-out loss over time, to compare a swarm with.

`hypergpud demo` measures one machine that trains alone. An observer shows any curve of this form
(`observer.reference` in its settings).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

import msgspec
from msgspec import Meta

MAX_REFERENCE_POINTS = 600
"""As many points as a loss curve of the page."""

MAX_REFERENCE_BYTES = 1 << 17
"""A file of MAX_REFERENCE_POINTS points has less than half of this."""


class ReferencePoint(msgspec.Struct, frozen=True, kw_only=True):
    """The held-out loss `seconds` after the beginning of training, after `samples` samples."""

    seconds: Annotated[float, Meta(ge=0)]
    samples: Annotated[int, Meta(ge=0)]
    loss: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.loss) and math.isfinite(self.seconds)):
            raise ValueError("a point that is not finite")


class ReferenceCurve(msgspec.Struct, frozen=True, kw_only=True):
    """A curve and its name. `began_at` (unix seconds) is when the swarm began to train."""

    label: Annotated[str, Meta(max_length=64)]
    began_at: float
    points: Annotated[tuple[ReferencePoint, ...], Meta(max_length=MAX_REFERENCE_POINTS)] = ()

    def loss_at(self, seconds: float) -> float | None:
        """Return the loss after `seconds`, linear between two points; None outside the curve."""
        for before, after in pairwise(self.points):
            if before.seconds <= seconds <= after.seconds:
                width = after.seconds - before.seconds
                part = (seconds - before.seconds) / width if width > 0 else 1.0
                return before.loss + part * (after.loss - before.loss)
        return None
