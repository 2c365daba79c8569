"""Parts of py-libp2p that are replaced or tuned for every host."""

from __future__ import annotations

import logging

import trio
from libp2p.host.basic_host import BasicHost
from libp2p.peer import peer_record
from libp2p.peer.id import ID
from multiaddr import Multiaddr

# This happens after the import, since the library sets up logging when it is imported.
for _name in ("libp2p", "async_service", "multiaddr", "noise"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


def number_own_records_from(first: int) -> None:
    """Let the library number this node's signed addresses from `first` on.

    `first` must be above the numbers of earlier runs of this node. The library takes the wall
    clock, and a peer drops every message with an older record than it knows. A node that was
    restarted with its clock an hour behind was heard by no peer, and no peer told it of
    subscriptions.
    """
    peer_record._last_timestamp = max(peer_record._last_timestamp, first)


class NoAutoConnector:
    """Replaces the library's own peer manager with one that does nothing."""

    # The library believes that a connector is at work and starts none.
    _is_connecting = True

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def run_background_task(self, nursery: trio.Nursery) -> None: ...
    async def maybe_connect(self) -> None: ...
    def record_disconnect(self, peer_id: ID) -> None: ...


class CachedAddressHost(BasicHost):
    """Computes its own addresses once, until others are announced.

    The library computes them for every gossip message, 8% of what a round's control costs.
    """

    _announced: list[Multiaddr] | None = None

    def announce(self, addresses: list[Multiaddr]) -> None:
        """Hand out these addresses from now on. Each ends in this host's /p2p/ID."""
        self._announced = addresses

    def get_addrs(self) -> list[Multiaddr]:
        if self._announced is None:
            self._announced = super().get_addrs()
        return list(self._announced)
