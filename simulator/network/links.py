"""The link model: the networks that plans are judged on.

The model was stated before the planner existed, and it was not fitted to the planner.

`regions`: four equal regions. A round trip takes 15 ms inside a region and 120 to 220 ms between
two, drawn once for each pair of regions. Access is 100 Mbit/s down and 20 Mbit/s up. Loss is 0.01%
inside and 0.5% between. A flow carries at most 1.22 x MSS / (RTT x sqrt(loss)) (Mathis et al. 1997,
https://doi.org/10.1145/263932.264023), and parallel flows of one pair in one direction share that.
Two regions share 1 Gbit/s each way.

The other profiles are the qualities that the first HyperGPU defined: a range of round trips, loss,
bits per second each way, and jitter. Nodes lie in a plane, so that some are near each other. The
shortest and the longest path across the plane take the ends of the range. A tenth is drawn for each
path in addition, since real paths do not follow a plane. The bound on a flow is the same.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from simulator.fakes.link_profiles import QUALITIES

MSS_BYTES = 1460
MATHIS = 1.22
# 10 million parameters in float32.
VECTOR_BYTES = 40_000_000
REGIONS = 4
INSIDE_S, BETWEEN_S = 0.015, (0.120, 0.220)
INSIDE_LOSS, BETWEEN_LOSS = 0.0001, 0.005
REGION_UPLINK_BPS, REGION_DOWNLINK_BPS = 20e6, 100e6
BETWEEN_BPS = 1e9
# How far a round trip may be from the plane's, relative.
DETOUR = 0.1
# A link without a bound of its own carries this much.
MOST_BPS = 10e9

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PROFILES = (*QUALITIES, "regions")


class NetworkLinks(msgspec.Struct, frozen=True, kw_only=True):
    """The links between `nodes` nodes.

    Units are bits per second and seconds. Matrices are [from, to] with shape (nodes, nodes).
    """

    nodes: int
    uplink_bps: Floats  # shape (nodes,)
    downlink_bps: Floats  # shape (nodes,)
    rtt_s: Floats  # symmetric, 0 on the diagonal
    loss: Floats
    jitter_s: float
    region: Ints  # shape (nodes,)
    between_bps: (
        # Shape (regions, regions): shared by all traffic between two regions, infinite inside one.
        Floats
    )

    @property
    def flow_bps(self) -> Floats:
        """The most that all flows from one node to another carry together, bits per second."""
        with np.errstate(divide="ignore"):
            most = MATHIS * MSS_BYTES * 8 / (self.rtt_s * np.sqrt(self.loss))
        limited: Floats = np.minimum(most, MOST_BPS)
        return limited

    def slowed(self, nodes: npt.NDArray[np.bool_], times: float) -> NetworkLinks:
        """The same network after every path of those nodes has become `times` times as long."""
        return msgspec.structs.replace(
            self, rtt_s=np.where(nodes[:, None] | nodes[None, :], self.rtt_s * times, self.rtt_s)
        )


def links_of(profile: str, nodes: int, seed: int) -> NetworkLinks:
    """The network of a profile. Raises `KeyError` for an unknown one."""
    rng = np.random.default_rng(
        [seed, nodes, PROFILES.index(profile) if profile in PROFILES else 0]
    )
    if profile == "regions":
        return _regions(nodes, rng)
    return _quality(profile, nodes, rng)


def _regions(nodes: int, rng: np.random.Generator) -> NetworkLinks:
    # A node's region does not follow from its place in the order of peers.
    region = rng.permutation(np.arange(nodes) % REGIONS)
    apart = np.triu(rng.uniform(*BETWEEN_S, (REGIONS, REGIONS)), 1)
    apart += apart.T
    same = region[:, None] == region[None, :]
    rtt = np.where(same, INSIDE_S, apart[region[:, None], region[None, :]])
    np.fill_diagonal(rtt, 0.0)
    between = np.full((REGIONS, REGIONS), BETWEEN_BPS)
    np.fill_diagonal(between, np.inf)
    return NetworkLinks(
        nodes=nodes,
        uplink_bps=np.full(nodes, REGION_UPLINK_BPS),
        downlink_bps=np.full(nodes, REGION_DOWNLINK_BPS),
        rtt_s=rtt,
        loss=np.where(same, INSIDE_LOSS, BETWEEN_LOSS),
        jitter_s=0.0,
        region=region,
        between_bps=between,
    )


def _quality(profile: str, nodes: int, rng: np.random.Generator) -> NetworkLinks:
    quality = QUALITIES[profile]
    low, high = quality.round_trip_s
    place = rng.random((nodes, 2))
    across = np.sqrt(((place[:, None] - place[None]) ** 2).sum(axis=2) / 2)
    detour = np.triu(rng.uniform(1 - DETOUR, 1 + DETOUR, (nodes, nodes)), 1)
    rtt = np.clip((low + (high - low) * across) * (detour + detour.T), low, high)
    np.fill_diagonal(rtt, 0.0)
    bits = np.full(nodes, min(quality.rate_bps, MOST_BPS))
    return NetworkLinks(
        nodes=nodes,
        uplink_bps=bits,
        downlink_bps=bits.copy(),
        rtt_s=rtt,
        loss=np.full((nodes, nodes), quality.loss),
        jitter_s=quality.jitter_s,
        region=np.zeros(nodes, np.int64),
        between_bps=np.full((1, 1), np.inf),
    )
