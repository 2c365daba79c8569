"""Control connections to peers that cannot be called, over connections that others bring about."""

from __future__ import annotations

import trio

from daemon.network.libp2p.host import Host
from daemon.network.peers.live_connections import LiveConnections
from daemon.network.traversal.connector import Connector
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.network.reachability import Way

# Both ends of a pair find out at the same time that they have no connection. The one with the
# greater id waits this long for the other one's.
YIELD_S = 1.0


class Detours:
    """Connects around routers: punched where both ends' routers allow it, else relayed."""

    def __init__(self, host: Host, connector: Connector, connections: LiveConnections) -> None:
        self._host, self._connector, self._connections = host, connector, connections

    async def connect(self, peer: PeerId) -> None:
        """Connect to `peer`, unless it connects first. Raises `Unreachable`."""
        if self._host.id.to_base58() > peer:
            await trio.sleep(YIELD_S)
            if peer in self._connections:
                return
        reasons: list[str] = []
        for way in self._connector.ways_around(peer):
            try:
                await self._connect(peer, way)
            except Unreachable as error:
                reasons.append(str(error))
            else:
                return
        raise Unreachable("; ".join(reasons))

    async def _connect(self, peer: PeerId, way: Way) -> None:
        stream = await self._connector.connect(peer, "control", way)
        await self._host.connect_over(stream, peer, relayed=way == "relay")
