"""What no plan of a layout can beat on the link model: the lower bounds of one flat group and of
rows with an exchange between them.

Every node sends its vector once to owners and, as an owner, the mean once to everybody, whatever
the layout:

    flat       2 (n - 1) / n of the vector over the uplink, or what the slowest path carries of 1 / n of it, twice
    two-level  (k - 1) / k in the row, then (r - 1) / (k r) twice between the r owners of a rank, then (k - 1) / k in the row: the same volume.
               The slowest path between regions carries 1 / n of the vector twice, and only what is spread may overlap with what
               goes to the row.

Nothing is said here of messages' handling or of unequal shares of a link. Rounds that neither
layout can shorten allow no speed-up, and say so.
"""

from __future__ import annotations

import msgspec
import numpy as np

from simulator.network.links import VECTOR_BYTES, NetworkLinks


class LowerBounds(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds; `row` is the size with which the two-level bound is reached."""

    flat_s: float
    two_level_s: float
    row: int

    @property
    def speed_up(self) -> float:
        """What the better layout allows against the flat one; 1 where rows do not help."""
        return max(1.0, self.flat_s / self.two_level_s)


def bounds_of(links: NetworkLinks) -> LowerBounds:
    """The bounds for rows within regions of equal size."""
    regions = len(links.between_bits)
    least = links.nodes // regions
    sizes = [k for k in range(2, least + 1) if least % k == 0]
    best = min((two_level_s(links, k), k) for k in sizes) if sizes else (np.inf, 0)
    return LowerBounds(flat_s=flat_s(links), two_level_s=float(best[0]), row=best[1])


def flat_s(links: NetworkLinks) -> float:
    """One group of all."""
    n, bits = links.nodes, 8 * VECTOR_BYTES
    away = ~np.eye(n, dtype=bool)
    step = max(
        bits * (n - 1) / n / min(links.up.min(), links.down.min()),
        bits / n / links.flow_bits[away].min(),
    )
    between = links.between_bits[np.isfinite(links.between_bits)]
    if between.size:
        region = np.bincount(links.region)
        step = max(step, float(np.outer(region, region).max()) * bits / n / between.min())
    return float(2 * step + _late(links))


def two_level_s(links: NetworkLinks, row: int) -> float:
    """Rows of `row` members, none of which has a member far away."""
    n, bits = links.nodes, 8 * VECTOR_BYTES
    rows, link = n // row, min(links.up.min(), links.down.min())
    far = links.region[:, None] != links.region[None]
    near_flow = float(np.median(links.flow_bits[~far & ~np.eye(n, dtype=bool)]))
    far_flow = float(links.flow_bits[far].min()) if far.any() else near_flow
    step = max(bits * (row - 1) / row / link, bits / row / near_flow)
    sums = max(bits * (rows - 1) / n / link, bits / n / far_flow)
    return float(
        step + sums + max(step + bits * (rows - 1) / n / link, bits / n / far_flow) + _late(links)
    )


def _late(links: NetworkLinks) -> float:
    """The longest way once for the scatter or the sums, and once for the gather, which no layout
    saves.
    """
    return float(links.rtt_s.max())
