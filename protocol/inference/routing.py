"""The cheapest chain of stages for a range of layers, by Dijkstra's algorithm.

The nodes of the graph are the boundaries at which some stage begins or ends. An edge is one stage
that computes the layers between two of them; a stage may compute a part of its range. An edge costs
the round trip to the stage and the time of one token in its layers.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence

import msgspec

from protocol.identity import PeerId
from protocol.inference.coverage import missing_layers
from protocol.inference.layers import LayerRange

ONE_HOLDER_S = 0.02
"""What it costs that no second stage could take over. A round trip in one city weighs as much: a
chain that survives the death of a stage is worth that, and not a detour around the world."""

OTHER_KERNEL_S = 10.0
"""What it costs that a stage cannot repeat the bits: any chain that can goes first."""

SUSPECT_S = 5.0
"""What each missed deadline of a stage costs, in one generation: other stages go first."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A stage, as a client sees it."""

    peer: PeerId
    layers: LayerRange
    kernel: str
    rtt_s: float
    layer_tokens_per_s: float
    cache_tokens_free: int


class Hop(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of a chain, and the layers that it computes there."""

    peer: PeerId
    layers: LayerRange
    kernel: str
    # The time that one token takes in these layers, by the stage's own measurement.
    token_s: float


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A chain of hops, in order, and its predicted time for one token."""

    hops: tuple[Hop, ...]
    cost_s: float


class NoRoute(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no chain: layers that nobody serves, or stages without room."""

    missing: tuple[LayerRange, ...]
    # Whether stages hold the missing layers, but have too little cache left.
    full: bool


def find_route(
    holders: Sequence[Holder],
    wanted: LayerRange,
    *,
    cache_tokens: int,
    kernels: Mapping[LayerRange, str] | None = None,
    suspects: Mapping[PeerId, int] | None = None,
    excluded: Collection[PeerId] = (),
) -> Route | NoRoute:
    """Find the cheapest chain for a range of layers.

    Args:
        holders: the known stages. Equal inputs give equal routes.
        wanted: the layers.
        cache_tokens: the room that each stage must have.
        kernels: the kernel ids by which parts of `wanted` were computed before.
        suspects: the missed deadlines of stages.
        excluded: stages that must not be used.
    """
    usable = sorted(
        (holder for holder in holders if holder.peer not in excluded), key=lambda one: one.peer
    )
    roomy = [holder for holder in usable if holder.cache_tokens_free >= cache_tokens]
    missing = missing_layers((holder.layers for holder in roomy), wanted)
    if missing:
        absent = missing_layers((holder.layers for holder in usable), wanted)
        return NoRoute(missing=absent or missing, full=not absent)
    places = {place for holder in roomy for place in (holder.layers.first, holder.layers.stop)}
    inside = {place for place in places if wanted.first < place < wanted.stop}
    boundaries = sorted({wanted.first, wanted.stop, *inside})
    best: dict[int, float] = {wanted.first: 0.0}
    came: dict[int, Hop] = {}
    queue = [(0.0, wanted.first)]
    while queue:
        cost, place = heapq.heappop(queue)
        if place == wanted.stop:
            break
        if cost > best[place]:
            continue
        for holder in roomy:
            if not holder.layers.first <= place < holder.layers.stop:
                continue
            for end in boundaries:
                if not place < end <= holder.layers.stop:
                    continue
                layers = LayerRange(first=place, stop=end)
                total = cost + _edge_s(holder, layers, roomy, kernels or {}, suspects or {})
                if total < best.get(end, float("inf")):
                    best[end] = total
                    came[end] = _hop(holder, layers)
                    heapq.heappush(queue, (total, end))
    hops: list[Hop] = []
    place = wanted.stop
    while place != wanted.first:
        hops.insert(0, came[place])
        place = came[place].layers.first
    return Route(hops=tuple(hops), cost_s=best[wanted.stop])


def _hop(holder: Holder, layers: LayerRange) -> Hop:
    return Hop(
        peer=holder.peer,
        layers=layers,
        kernel=holder.kernel,
        token_s=len(layers) / holder.layer_tokens_per_s,
    )


def _edge_s(
    holder: Holder,
    layers: LayerRange,
    holders: Sequence[Holder],
    kernels: Mapping[LayerRange, str],
    suspects: Mapping[PeerId, int],
) -> float:
    cost = holder.rtt_s + len(layers) / holder.layer_tokens_per_s
    if not any(one.layers.contains(layers) for one in holders if one.peer != holder.peer):
        cost += ONE_HOLDER_S
    overlapping = (
        kernel
        for before, kernel in kernels.items()
        if before.first < layers.stop and layers.first < before.stop
    )
    if any(kernel != holder.kernel for kernel in overlapping):
        cost += OTHER_KERNEL_S
    return cost + SUSPECT_S * suspects.get(holder.peer, 0)
