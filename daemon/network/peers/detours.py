"""Control connections to peers that cannot be called, over connections that others bring about."""

from __future__ import annotations

import logging

import trio

from daemon.network.libp2p.connection import MeasuredYamux
from daemon.network.libp2p.host import Host
from daemon.network.peers.direct_calls import DirectCalls
from daemon.network.peers.live_connections import LiveConnections
from daemon.network.peers.unreachable import UnreachablePeers
from daemon.network.traversal.connector import Connector
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.network.reachability import KIND_OF, Way

_log = logging.getLogger(__name__)

# How often relayed connections are looked at, and when a better way that failed is tried again.
LOOK_S, RETRY_S = 2.0, 120.0
# Both ends of a pair find out at the same time that they have no connection. The one with the
# greater id waits this long for the other one's.
YIELD_S = 1.0


class Detours:
    """Connects around routers: punched where both ends' routers allow it, else relayed."""

    def __init__(
        self,
        host: Host,
        connector: Connector,
        calls: DirectCalls,
        connections: LiveConnections,
        unreachable: UnreachablePeers,
    ) -> None:
        self._host, self._connector, self._connections = host, connector, connections
        self._calls, self._unreachable = calls, unreachable

    def connected(self, peer: PeerId) -> None:
        """Note that a connection to the peer is up."""
        self._unreachable.clear(peer)

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
        self._unreachable.note(peer, trio.current_time())
        raise Unreachable("; ".join(reasons))

    async def _connect(self, peer: PeerId, way: Way) -> None:
        stream = await self._connector.connect(peer, "control", way)
        await self._host.upgrade(stream, peer, KIND_OF[way])

    async def run(self) -> None:
        """Replace relayed connections by better ones where that can work, until cancelled.

        A pair connects over a relay before its ends know what their routers do, and an end that was
        too busy to answer looked as if nobody could call it.
        """
        # When a better way was tried, and what both ends knew of their reach then.
        tried: dict[PeerId, tuple[float, object]] = {}
        while True:
            await trio.sleep(LOOK_S)
            relayed, now = self._connections.relayed(), trio.current_time()
            tried = {
                peer: (at, reaches)
                for peer, (at, reaches) in tried.items()
                if peer in relayed
                and now - at < RETRY_S
                and reaches == self._connector.reaches(peer)
            }
            for peer in relayed.keys() - tried.keys():
                if way := self._better_way(peer):
                    tried[peer] = now, self._connector.reaches(peer)
                    await self._replace(peer, relayed[peer], way)

    def _better_way(self, peer: PeerId) -> Way | None:
        """The way for this end to try, and None where the other end tries, or nothing can work."""
        if self._connector.answers(peer):
            return "call"
        # Of two ends that can punch one tries, and both notice.
        is_first = self._host.id.to_base58() < peer
        return "punch" if is_first and "punch" in self._connector.ways_around(peer) else None

    async def _replace(self, peer: PeerId, relayed: list[MeasuredYamux], way: Way) -> None:
        try:
            if way == "call":
                called = await self._calls.connect(peer)
                if not called.connected:
                    raise Unreachable("; ".join(called.reasons))
            else:
                await self._connect(peer, way)
        except Unreachable as error:
            _log.debug("%s stays relayed: %s", peer, error)
            return
        for connection in relayed:
            await connection.cut(f"a {KIND_OF[way]} connection replaced it")
