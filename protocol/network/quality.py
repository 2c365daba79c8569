"""How good a connection is: a score of 0 to 100, and a class.

The score is the mean of up to four parts, each read from a table of bounds: at the bounds between
two classes a part is worth 75, 50, 25 and 0. The class changes only when three measurements agree.
"""

from __future__ import annotations

from itertools import pairwise

import msgspec

CLASSES: tuple[tuple[str, float], ...] = (
    ("perfect", 90.0),
    ("good", 65.0),
    ("average", 40.0),
    ("poor", 20.0),
    ("unstable", 0.0),
)
"""Names and the least score of each, the best first."""

AGREEING = 3
"""Consecutive measurements that must name one class before the class changes."""


RTT_MS = ((1.0, 100.0), (50.0, 75.0), (150.0, 50.0), (300.0, 25.0), (500.0, 0.0))
LOSS_PERCENT = ((0.0, 100.0), (0.1, 75.0), (1.0, 50.0), (5.0, 25.0), (10.0, 0.0))
JITTER_MS = ((0.0, 100.0), (5.0, 75.0), (20.0, 50.0), (50.0, 25.0), (100.0, 0.0))
MBIT = ((1.0, 0.0), (10.0, 25.0), (50.0, 50.0), (100.0, 75.0), (1000.0, 100.0))


class LinkMeasurement(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement of a connection.

    A value is None if this measurement could not determine it; it then does not count.
    """

    rtt_s: float
    jitter_s: float
    # A share, 0 to 1.
    loss: float | None = None
    bits_per_second: float | None = None


class LinkQuality(msgspec.Struct, frozen=True, kw_only=True):
    """The class of a connection and the reason for it.

    `leaning` is another class that the last `times` measurements named.
    """

    name: str = "unknown"
    score: float = 0.0
    reason: str = "not measured yet"
    leaning: str = ""
    times: int = 0


def score(measured: LinkMeasurement) -> float:
    """Return the score of a measurement, 0 to 100."""
    parts = [_read(RTT_MS, 1000 * measured.rtt_s), _read(JITTER_MS, 1000 * measured.jitter_s)]
    if measured.loss is not None:
        parts.append(_read(LOSS_PERCENT, 100 * measured.loss))
    if measured.bits_per_second is not None:
        parts.append(_read(MBIT, measured.bits_per_second / 1e6))
    return sum(parts) / len(parts)


def observe(quality: LinkQuality, measured: LinkMeasurement) -> LinkQuality:
    """Return the quality after another measurement."""
    points = score(measured)
    named = next((name for name, least in CLASSES if points >= least), CLASSES[-1][0])
    if named == quality.name:
        return LinkQuality(name=named, score=points, reason=quality.reason)
    times = quality.times + 1 if named == quality.leaning else 1
    if times < AGREEING:
        return LinkQuality(
            name=quality.name,
            score=quality.score,
            reason=quality.reason,
            leaning=named,
            times=times,
        )
    return LinkQuality(
        name=named,
        score=points,
        reason=f"{named}: {_words(measured)}, {AGREEING} measurements agree (score {points:.0f})",
    )


def _words(measured: LinkMeasurement) -> str:
    words = f"{1000 * measured.rtt_s:.0f} ms, jitter {1000 * measured.jitter_s:.0f} ms"
    if measured.loss is not None:
        words += f", loss {100 * measured.loss:.2g}%"
    return (
        words
        if measured.bits_per_second is None
        else f"{words}, {measured.bits_per_second / 1e6:.3g} Mbit/s"
    )


def _read(table: tuple[tuple[float, float], ...], value: float) -> float:
    """Return the value of a piecewise linear table, constant beyond its ends."""
    if not value > table[0][0]:
        return table[0][1]
    for (x0, y0), (x1, y1) in pairwise(table):
        if value <= x1:
            return y0 + (y1 - y0) * (value - x0) / (x1 - x0)
    return table[-1][1]
