"""The points of the charts over time: one for each certificate, thinned like the loss curve."""

from __future__ import annotations

import msgspec

PHASES = ("train", "ready", "scatter", "reduce", "vote")
"""The phases of a point, in the order of a round."""


class RoundPoint(msgspec.Struct, frozen=True, kw_only=True):
    """What the charts show of one certificate.

    `took_s` is the time since the certificate before: at least 50 ms, or 0 where it is unknown.
    `phases` has the seconds of each of `PHASES` on this node, or is empty where it took no part.
    `failed` counts the tries without a certificate before this one.
    """

    number: int
    at: float
    samples: int
    members: int
    counted: int
    took_s: float
    phases: tuple[float, ...] = ()
    failed: int = 0

    @property
    def samples_per_second(self) -> float | None:
        """The work of the round for its time; None where the time is unknown."""
        return self.samples / self.took_s if self.took_s > 0 else None
