"""The lower bounds of any plan of a layout on the link model: one flat group, and two levels.

Every node sends its vector once to owners and, as an owner, the mean once to everybody, whatever
the layout. With n nodes, groups of k members and r groups:

flat
    2 (n - 1) / n of the vector crosses the uplink, or the slowest path carries 1 / n of it twice.
two-level
    (k - 1) / k crosses in the group, then (r - 1) / (k r) twice between the r owners of a
    position, then (k - 1) / k in the group: the same volume. The slowest path between regions
    carries 1 / n of the vector twice, and only what is spread may overlap with what goes to the
    group.

The bounds leave out the handling of messages and unequal shares of a link. A round that neither
layout can shorten allows no speed-up.
"""

from __future__ import annotations

import msgspec
import numpy as np

from simulator.network.links import VECTOR_BYTES, NetworkLinks


class LowerBounds(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds in seconds; `group_size` is the size that reaches the two-level bound."""

    flat_s: float
    two_level_s: float
    group_size: int

    @property
    def speed_up(self) -> float:
        """How much faster the better layout may be than the flat one; 1 without a gain."""
        return max(1.0, self.flat_s / self.two_level_s)


def bounds_of(links: NetworkLinks) -> LowerBounds:
    """The bounds for groups within regions of equal size."""
    regions = len(links.between_bps)
    least = links.nodes // regions
    sizes = [k for k in range(2, least + 1) if least % k == 0]
    best = min((two_level_s(links, k), k) for k in sizes) if sizes else (np.inf, 0)
    return LowerBounds(flat_s=flat_s(links), two_level_s=float(best[0]), group_size=best[1])


def flat_s(links: NetworkLinks) -> float:
    """The bound of one group of all nodes."""
    n, bits = links.nodes, 8 * VECTOR_BYTES
    away = ~np.eye(n, dtype=bool)
    step = max(
        bits * (n - 1) / n / min(links.uplink_bps.min(), links.downlink_bps.min()),
        bits / n / links.flow_bps[away].min(),
    )
    between = links.between_bps[np.isfinite(links.between_bps)]
    if between.size:
        region = np.bincount(links.region)
        step = max(step, float(np.outer(region, region).max()) * bits / n / between.min())
    return float(2 * step + _late(links))


def two_level_s(links: NetworkLinks, size: int) -> float:
    """The bound of groups of `size` members, none of which spans regions."""
    n, bits = links.nodes, 8 * VECTOR_BYTES
    groups, link = n // size, min(links.uplink_bps.min(), links.downlink_bps.min())
    far = links.region[:, None] != links.region[None]
    near_flow = float(np.median(links.flow_bps[~far & ~np.eye(n, dtype=bool)]))
    far_flow = float(links.flow_bps[far].min()) if far.any() else near_flow
    step = max(bits * (size - 1) / size / link, bits / size / near_flow)
    sums = max(bits * (groups - 1) / n / link, bits / n / far_flow)
    return float(
        step + sums + max(step + bits * (groups - 1) / n / link, bits / n / far_flow) + _late(links)
    )


def _late(links: NetworkLinks) -> float:
    """The longest path once for the scatter or the sums and once for the gather.

    No layout saves these.
    """
    return float(links.rtt_s.max())
