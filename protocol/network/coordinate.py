"""Network coordinates, which estimate the round trip between two nodes that never met.

The coordinates are Vivaldi with height (Dabek et al. 2004,
https://doi.org/10.1145/1030194.1015471). The plane, here a space of three dimensions, stands for
the core of the network. The height stands for a node's own access. Each measurement pulls or pushes
a node along the line to the other node, the more so the surer the other node is of its place.
Coordinates are whole microseconds: they travel exactly, and everyone who plans computes the same
estimate.
"""

from __future__ import annotations

from math import isqrt, sqrt
from typing import Annotated

import msgspec
from msgspec import Meta

FAR_US = 60_000_000
"""One minute. No place on Earth is further, and its square is still quick to compute with."""

Microseconds = Annotated[int, Meta(ge=0, le=FAR_US)]
Offset = Annotated[int, Meta(ge=-FAR_US, le=FAR_US)]

WHOLE = 1_000_000
"""A relative error of one, in parts per million."""

PULL = 0.4
"""The largest part of the way to move in one step (`c_c` and `c_e` of the paper).

The medians used here are steadier than the samples of the paper. The paper's 0.25 took twice as
many rounds.
"""

ASTRAY, ASTRAY_US = 3, 20_000
"""An estimate this many times the measurement, and this much above it, is no mere error.

The node then is in a wrong place. Springs that hold a node among wrong neighbours never release it.
That was found with four regions, which are the corners of a tetrahedron.
"""

LEAST_HEIGHT_US = 100
"""No access takes less. It keeps two nodes at one place apart."""

LEAST_RTT_US = 100


class Coordinate(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """A place in the core (`x_us`, `y_us`, `z_us`), a height above it, and a relative error.

    `error_ppm` is the error of estimates from this place, in parts per million.
    """

    x_us: Offset = 0
    y_us: Offset = 0
    z_us: Offset = 0
    height_us: Microseconds = LEAST_HEIGHT_US
    error_ppm: Annotated[int, Meta(ge=0, le=WHOLE)] = WHOLE


ORIGIN = Coordinate()
"""Where every node begins, knowing nothing."""


def estimate_us(one: Coordinate, other: Coordinate) -> int:
    """Estimate the round trip between two nodes, in whole microseconds."""
    square = (
        (one.x_us - other.x_us) ** 2 + (one.y_us - other.y_us) ** 2 + (one.z_us - other.z_us) ** 2
    )
    return isqrt(square) + one.height_us + other.height_us


def moved(own: Coordinate, other: Coordinate, rtt_us: int, salt: bytes) -> Coordinate:
    """Return where a node is after it measured a round trip to another node.

    A node computes this for itself alone. The result is data for others, so it may use operations
    that differ between machines.

    Args:
        own: where the node was.
        other: where the other node is.
        rtt_us: what a window of measurements came to (`SampleWindow.settled`).
        salt: 3 bytes or more, which decide how two nodes at one place move apart.
    """
    measured = min(max(rtt_us, LEAST_RTT_US), FAR_US)
    estimated = estimate_us(own, other)
    if (
        estimated > ASTRAY * measured
        and estimated - measured > ASTRAY_US
        and other.error_ppm <= own.error_ppm
    ):
        return _beside(other, measured, own.error_ppm, salt)
    weight = own.error_ppm / ((own.error_ppm + other.error_ppm) or 1)
    wrong = min(abs(estimated - measured) / measured, 1.0)
    error = wrong * PULL * weight + own.error_ppm / WHOLE * (1 - PULL * weight)
    force = PULL * weight * (measured - estimated)
    away = (own.x_us - other.x_us, own.y_us - other.y_us, own.z_us - other.z_us)
    if not any(away):
        away = (salt[0] - 127, salt[1] - 127, (salt[2] - 127) or 1)
    heights = own.height_us + other.height_us
    # The unit vector in a space with height is the core's direction and the sum of the heights,
    # over the whole length.
    length = sqrt(sum(part * part for part in away))
    in_core = length / (length + heights) if estimated > heights else 0.5
    x, y, z = (
        _within(at + force * in_core * part / length)
        for at, part in zip((own.x_us, own.y_us, own.z_us), away, strict=True)
    )
    height = max(LEAST_HEIGHT_US, min(FAR_US, round(own.height_us + force * (1 - in_core))))
    return Coordinate(
        x_us=x, y_us=y, z_us=z, height_us=height, error_ppm=min(WHOLE, round(error * WHOLE))
    )


def _beside(other: Coordinate, rtt_us: int, error_ppm: int, salt: bytes) -> Coordinate:
    """Return a place at the side of a neighbour that turned out to be near."""
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
