"""Network coordinates: where a node is, so that the round trip between two that never met can be
told.

Vivaldi with height (Dabek et al. 2004, https://doi.org/10.1145/1030194.1015471): the plane, here a
space of three dimensions, stands for the core of the network, the height for a node's own access.
Each measurement pulls or pushes a node along the line to the other, the more the surer the other is
of its place. Whole microseconds, so that what travels is exact and everybody who plans computes the
same estimate.
"""

from __future__ import annotations

from math import isqrt, sqrt
from typing import Annotated

import msgspec
from msgspec import Meta

# A minute: nothing on Earth is further, and squares of it stay within what is quick.
FAR_US = 60_000_000
Microseconds = Annotated[int, Meta(ge=0, le=FAR_US)]
Offset = Annotated[int, Meta(ge=-FAR_US, le=FAR_US)]

WHOLE = 1_000_000  # parts: an error of one
# The paper's c_c and c_e: of the way at most in one step. Medians are steadier than its samples,
# and 0.25 took twice the rounds.
PULL = 0.4
# An estimate so many times the truth, and this much above it, is no error but another place:
# springs that.
ASTRAY, ASTRAY_US = 3, 20_000
# hold a node among the wrong neighbours never let it go (found with four regions, which are the
# corners of a tetrahedron) No access takes less; keeps two nodes of one place apart.
LEAST_HEIGHT_US = 100
LEAST_RTT_US = 100


class Coordinate(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """A place: in the core (`x_us`, `y_us`, `z_us`), the height above it, and how wrong estimates
    from it are (relative, in parts of a million).
    """

    x_us: Offset = 0
    y_us: Offset = 0
    z_us: Offset = 0
    height_us: Microseconds = LEAST_HEIGHT_US
    error_ppm: Annotated[int, Meta(ge=0, le=WHOLE)] = WHOLE


ORIGIN = Coordinate()
"""Where everybody begins, knowing nothing."""


def estimate_us(one: Coordinate, other: Coordinate) -> int:
    """The round trip between two nodes, in whole microseconds: exact, the same on every machine."""
    square = (
        (one.x_us - other.x_us) ** 2 + (one.y_us - other.y_us) ** 2 + (one.z_us - other.z_us) ** 2
    )
    return isqrt(square) + one.height_us + other.height_us


def moved(own: Coordinate, other: Coordinate, rtt_us: int, salt: bytes) -> Coordinate:
    """Where a node is after it measured `rtt_us` to one at `other`.

    `rtt_us` should be what a window of measurements came to (`samples.settled`). `salt` (3 bytes or
    more) says which way two nodes at one place part. Runs on the node that measured, for itself
    alone: what it comes to is data for others, so it may use what they may not.
    """
    measured = min(max(rtt_us, LEAST_RTT_US), FAR_US)
    told = estimate_us(own, other)
    if (
        told > ASTRAY * measured
        and told - measured > ASTRAY_US
        and other.error_ppm <= own.error_ppm
    ):
        return _beside(other, measured, own.error_ppm, salt)
    weight = own.error_ppm / ((own.error_ppm + other.error_ppm) or 1)
    wrong = min(abs(told - measured) / measured, 1.0)
    error = wrong * PULL * weight + own.error_ppm / WHOLE * (1 - PULL * weight)
    force = PULL * weight * (measured - told)
    away = (own.x_us - other.x_us, own.y_us - other.y_us, own.z_us - other.z_us)
    if not any(away):
        away = (salt[0] - 127, salt[1] - 127, (salt[2] - 127) or 1)
    heights = own.height_us + other.height_us
    # The unit vector of a space with height: the core's direction and the sum of heights, over the
    # whole length.
    length = sqrt(sum(part * part for part in away))
    in_core = length / (length + heights) if told > heights else 0.5
    x, y, z = (
        _within(at + force * in_core * part / length)
        for at, part in zip((own.x_us, own.y_us, own.z_us), away, strict=True)
    )
    height = max(LEAST_HEIGHT_US, min(FAR_US, round(own.height_us + force * (1 - in_core))))
    return Coordinate(
        x_us=x, y_us=y, z_us=z, height_us=height, error_ppm=min(WHOLE, round(error * WHOLE))
    )


def _beside(other: Coordinate, rtt_us: int, error_ppm: int, salt: bytes) -> Coordinate:
    """At the place of a neighbour that turned out to be near, a little to the side."""
    x, y, z = (
        _within(at + rtt_us * (part - 127) / 1024)
        for at, part in zip((other.x_us, other.y_us, other.z_us), salt, strict=False)
    )
    return Coordinate(
        x_us=x,
        y_us=y,
        z_us=z,
        height_us=max(LEAST_HEIGHT_US, min(rtt_us // 2, FAR_US)),
        error_ppm=error_ppm,
    )


def _within(value: float) -> int:
    return max(-FAR_US, min(FAR_US, round(value)))
