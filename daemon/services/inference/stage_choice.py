"""Chooses chains for a client: the stages that it knows, with its own round trips to them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import trio

from protocol.identity import PeerId
from protocol.inference.announcement import StageDirectory
from protocol.inference.layers import LayerRange
from protocol.inference.routing import Holder, NoRoute, Route, find_route
from protocol.ports.network import Network

UNKNOWN_RTT_S = 0.1
"""The round trip to a stage without a connection: half-way around the world."""


class StageChoice:
    """The stages of one model, as one client sees them."""

    def __init__(self, network: Network, directory: StageDirectory) -> None:
        self._network, self.directory = network, directory
        self._distrusted: set[PeerId] = set()

    def distrust(self, peer: PeerId) -> None:
        """Use a stage no more: an audit found its results wrong."""
        self._distrusted.add(peer)

    def is_distrusted(self, peer: PeerId) -> bool:
        """Whether an audit found a stage's results wrong."""
        return peer in self._distrusted

    def holders(self) -> list[Holder]:
        """Return the stages that are known, announce themselves and passed their audits."""
        rtts = {link.peer: link.rtt_s for link in self._network.links()}
        return [
            Holder(
                peer=known.peer,
                layers=known.stage.layers,
                kernel=known.stage.kernel,
                rtt_s=rtts.get(known.peer) or UNKNOWN_RTT_S,
                layer_tokens_per_s=known.stage.layer_tokens_per_s,
                cache_tokens_free=known.stage.cache_tokens_free,
            )
            for known in self.directory.stages(trio.current_time())
            if known.peer not in self._distrusted
        ]

    def route(
        self,
        wanted: LayerRange,
        cache_tokens: int,
        *,
        kernels: Mapping[LayerRange, str],
        suspects: Mapping[PeerId, int],
        excluded: Collection[PeerId],
    ) -> Route | NoRoute:
        """Find the cheapest chain; see `find_route`."""
        return find_route(
            self.holders(),
            wanted,
            cache_tokens=cache_tokens,
            kernels=kernels,
            suspects=suspects,
            excluded=excluded,
        )
