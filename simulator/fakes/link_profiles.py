"""What networks are like: the five qualities of `latency / loss / bandwidth / jitter`, and clusters
or regions far apart.

The qualities are those by which the first HyperGPU judged a connection. Latency here is one way,
drawn once for each path from the quality's range of round trips; a path keeps it, as a path between
two homes does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import msgspec

from protocol.digest import digest
from protocol.identity import PeerId
from simulator.fakes.link import LinkMap, LinkModel, same_link


class LinkQuality(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of connection. Latencies are round trips."""

    round_trip_s: tuple[float, float]
    loss: float
    bits_per_second: float
    jitter_s: float


QUALITIES: dict[str, LinkQuality] = {
    "perfect": LinkQuality(
        round_trip_s=(0.0, 0.001), loss=0.0, bits_per_second=math.inf, jitter_s=0.0
    ),
    "good": LinkQuality(
        round_trip_s=(0.010, 0.050), loss=0.001, bits_per_second=100e6, jitter_s=0.005
    ),
    "average": LinkQuality(
        round_trip_s=(0.050, 0.150), loss=0.01, bits_per_second=50e6, jitter_s=0.020
    ),
    "poor": LinkQuality(
        round_trip_s=(0.150, 0.300), loss=0.05, bits_per_second=10e6, jitter_s=0.050
    ),
    "unstable": LinkQuality(
        round_trip_s=(0.050, 0.500), loss=0.10, bits_per_second=20e6, jitter_s=0.100
    ),
}
NEAR = LinkModel(latency_s=0.02)
FAR = LinkModel(latency_s=0.25)  # half a second there and back
FARTHEST = LinkModel(latency_s=0.5)
# So that a vector of a megabyte takes long enough for links to be measured.
NARROW = LinkModel(latency_s=0.01, bandwidth_bps=4e6)

CITIES: tuple[tuple[str, float, float], ...] = (
    ("Frankfurt", 50.1, 8.7),
    ("Virginia", 38.9, -77.4),
    ("Singapore", 1.3, 103.8),
    ("São Paulo", -23.5, -46.6),
    ("Tokyo", 35.7, 139.7),
)
EARTH_KM = 6371.0
FIBRE_KM_PER_S = 200_000.0  # light in glass
# Cables are not great circles: measured round trips are about this much longer
# (https://wondernetwork.com/pings).
DETOUR = 1.6
LAST_MILE_S = 0.008  # one way, both homes together

REGIONS = 4
INSIDE_S, BETWEEN_S = 0.015, (0.120, 0.220)  # round trips
INSIDE_LOSS, BETWEEN_LOSS = 0.0001, 0.005
ACCESS_BPS = 20e6
# Over RTT x sqrt(loss): what one flow carries, bits a second.
FLOW_BITS = 1.22 * 8 * 1460


def _share(*parts: str) -> float:
    """A number in [0, 1) that follows from the names."""
    return int.from_bytes(digest(*(part.encode() for part in parts))[:7], "big") / (1 << 56)


def of_quality(quality: LinkQuality) -> LinkMap:
    """Every path of that quality, its latency drawn from the range by the names of its ends."""

    @cache
    def link(source: PeerId, target: PeerId) -> LinkModel:
        low, high = quality.round_trip_s
        one, two = sorted((source, target))
        return LinkModel(
            latency_s=(low + (high - low) * _share(one, two)) / 2,
            jitter_s=quality.jitter_s,
            bandwidth_bps=quality.bits_per_second,
            loss=quality.loss,
        )

    return link


@cache
def city_of(peer: PeerId) -> int:
    """Which of `CITIES` a node lives in."""
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
    """Five clusters in five cities; latency follows the distance."""
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
    """Which of four regions a node lives in."""
    return int(_share("region", peer) * REGIONS)


def four_regions(source: PeerId, target: PeerId) -> LinkModel:
    """The paths of `simulate network --profile regions`: near ones inside a region, far and lossy
    ones between.
    """
    return _between_regions(region_of(source), region_of(target))


LINKS: dict[str, Callable[[], LinkMap]] = {
    "near": lambda: same_link(NEAR),
    "far": lambda: same_link(FAR),
    "farthest": lambda: same_link(FARTHEST),
    "narrow": lambda: same_link(NARROW),
    "world": lambda: around_the_world,
    "regions": lambda: four_regions,
    **{name: (lambda quality=quality: of_quality(quality)) for name, quality in QUALITIES.items()},
}
"""Link maps by the names that stories use. Called once for each world."""
