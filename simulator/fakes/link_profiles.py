"""Named links: five qualities of `latency / loss / bandwidth / jitter`, and clusters or regions.

The first HyperGPU judged connections by these qualities. A latency is one way. It is drawn once for
each path from the quality's range of round trips, and a path keeps it, as a path between two homes
does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial

import msgspec

from protocol.digest import digest
from protocol.identity import PeerId
from simulator.fakes.link import LinkMap, LinkModel, same_link


class ConnectionQuality(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of connection. Latencies are round trips."""

    round_trip_s: tuple[float, float]
    loss: float
    rate_bps: float
    jitter_s: float


QUALITIES: dict[str, ConnectionQuality] = {
    "perfect": ConnectionQuality(
        round_trip_s=(0.0, 0.001), loss=0.0, rate_bps=math.inf, jitter_s=0.0
    ),
    "good": ConnectionQuality(
        round_trip_s=(0.010, 0.050), loss=0.001, rate_bps=100e6, jitter_s=0.005
    ),
    "average": ConnectionQuality(
        round_trip_s=(0.050, 0.150), loss=0.01, rate_bps=50e6, jitter_s=0.020
    ),
    "poor": ConnectionQuality(
        round_trip_s=(0.150, 0.300), loss=0.05, rate_bps=10e6, jitter_s=0.050
    ),
    "unstable": ConnectionQuality(
        round_trip_s=(0.050, 0.500), loss=0.10, rate_bps=20e6, jitter_s=0.100
    ),
}
NEAR = LinkModel(latency_s=0.02)
# Half a second there and back.
FAR = LinkModel(latency_s=0.25)
FARTHEST = LinkModel(latency_s=0.5)
# Narrow enough for a vector of a megabyte to take long enough for measurements.
NARROW = LinkModel(latency_s=0.01, bandwidth_bps=4e6)

CITIES: tuple[tuple[str, float, float], ...] = (
    ("Frankfurt", 50.1, 8.7),
    ("Virginia", 38.9, -77.4),
    ("Singapore", 1.3, 103.8),
    ("São Paulo", -23.5, -46.6),
    ("Tokyo", 35.7, 139.7),
)
EARTH_KM = 6371.0
# The speed of light in glass.
FIBRE_KM_PER_S = 200_000.0
# Cables are not great circles. Measured round trips are longer by about this factor
# (https://wondernetwork.com/pings).
DETOUR = 1.6
# One way, for both homes together.
LAST_MILE_S = 0.008

REGIONS = 4
# Round trips.
INSIDE_S, BETWEEN_S = 0.015, (0.120, 0.220)
INSIDE_LOSS, BETWEEN_LOSS = 0.0001, 0.005
ACCESS_BPS = 20e6
# One flow carries this many bits per second over RTT x sqrt(loss).
FLOW_BITS = 1.22 * 8 * 1460


def _share(*parts: str) -> float:
    """A number in [0, 1) that follows from the names."""
    return int.from_bytes(digest(*(part.encode() for part in parts))[:7], "big") / (1 << 56)


def of_quality(quality: ConnectionQuality) -> LinkMap:
    """Give every path this quality. The names of its ends draw its latency from the range."""

    @cache
    def link(source: PeerId, target: PeerId) -> LinkModel:
        low, high = quality.round_trip_s
        one, two = sorted((source, target))
        return LinkModel(
            latency_s=(low + (high - low) * _share(one, two)) / 2,
            jitter_s=quality.jitter_s,
            bandwidth_bps=quality.rate_bps,
            loss=quality.loss,
        )

    return link


@cache
def city_of(peer: PeerId) -> int:
    """The index in `CITIES` of the city in which a node lives."""
    return int(_share("city", peer) * len(CITIES))


def _distance_km(a: int, b: int) -> float:
    (_, north_a, east_a), (_, north_b, east_b) = CITIES[a], CITIES[b]
    one, two, apart = math.radians(north_a), math.radians(north_b), math.radians(east_b - east_a)
    cosine = math.sin(one) * math.sin(two) + math.cos(one) * math.cos(two) * math.cos(apart)
    return EARTH_KM * math.acos(max(-1.0, min(1.0, cosine)))


@cache
def _between(a: int, b: int) -> LinkModel:
    seconds = LAST_MILE_S + DETOUR * _distance_km(a, b) / FIBRE_KM_PER_S
    return LinkModel(
        latency_s=seconds,
        jitter_s=0.1 * seconds,
        bandwidth_bps=1e9 if a == b else 100e6,
        loss=0.0 if a == b else 0.001,
    )


def around_the_world(source: PeerId, target: PeerId) -> LinkModel:
    """Five clusters in five cities: the latency follows the distance."""
    return _between(city_of(source), city_of(target))


@cache
def _between_regions(one: int, other: int) -> LinkModel:
    if one == other:
        return LinkModel(latency_s=INSIDE_S / 2, bandwidth_bps=ACCESS_BPS, loss=INSIDE_LOSS)
    low, high = BETWEEN_S
    first, second = sorted((one, other))
    rtt_s = low + (high - low) * _share("regions", str(first), str(second))
    return LinkModel(
        latency_s=rtt_s / 2,
        bandwidth_bps=FLOW_BITS / (rtt_s * math.sqrt(BETWEEN_LOSS)),
        loss=BETWEEN_LOSS,
    )


@cache
def region_of(peer: PeerId) -> int:
    """The region, of four, in which a node lives."""
    return int(_share("region", peer) * REGIONS)


def four_regions(source: PeerId, target: PeerId) -> LinkModel:
    """The paths of `simulate network --profile regions`.

    They are near inside a region, and far and lossy between regions.
    """
    return _between_regions(region_of(source), region_of(target))


LINKS: dict[str, Callable[[], LinkMap]] = {
    "near": lambda: same_link(NEAR),
    "far": lambda: same_link(FAR),
    "farthest": lambda: same_link(FARTHEST),
    "narrow": lambda: same_link(NARROW),
    "world": lambda: around_the_world,
    "regions": lambda: four_regions,
    **{name: partial(of_quality, quality) for name, quality in QUALITIES.items()},
}
"""Makes the link map of a name that stories use. It is called once for each world."""
