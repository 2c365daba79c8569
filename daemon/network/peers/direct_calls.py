"""Calls the addresses of a peer until the peer proves its key at one of them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import trio

from daemon.network.addresses import PeerAddress
from daemon.network.connect_race import ConnectRace, Target
from daemon.network.libp2p.host import Host
from daemon.network.peers.dial_targets import DialTargets
from daemon.network.peers.live_connections import LiveConnections
from protocol.errors import Unreachable
from protocol.identity import PeerId

# For TCP alone: the kernel repeats a lost SYN after 1 s, 3 s and 7 s.
CONNECT_TIMEOUT_S = 8.0


class CallResult(msgspec.Struct, frozen=True):
    """What came of the calls to one peer."""

    connected: bool
    # How many addresses were called.
    tried: int
    # Why calls failed, one sentence each.
    reasons: tuple[str, ...]


class DirectCalls:
    """Connects this node's host to peers at their own addresses."""

    def __init__(self, host: Host, connections: LiveConnections, targets: DialTargets) -> None:
        self._host, self._connections, self._targets = host, connections, targets

    async def connect(self, peer: PeerId) -> CallResult:
        """Call the addresses of a peer. A direct connection that the peer opens meanwhile counts.

        Raises:
            Unreachable: This node has too many connections for another one.
        """
        self._host.check_room(peer)
        reasons: list[str] = []
        race = ConnectRace(self._to_call(peer, reasons), CONNECT_TIMEOUT_S)
        while (found := await race.next_stream()) is not None:
            target, stream = found
            # The peer may have called this node meanwhile.
            if self._is_direct(peer):
                await trio.aclose_forcefully(stream)
                break
            try:
                await self._host.upgrade(stream, peer)
            except Unreachable as error:
                reasons.append(str(error))
            else:
                self._targets.proved(*target.key)
                break
        return CallResult(self._is_direct(peer), race.tried, (*reasons, *race.reasons))

    def _to_call(
        self, peer: PeerId, reasons: list[str]
    ) -> Iterator[Target[tuple[PeerAddress, PeerId]]]:
        for address, source in self._targets.to_dial(peer, reasons):
            yield Target.of_address((address, source), address)

    def _is_direct(self, peer: PeerId) -> bool:
        return peer in self._connections and peer not in self._connections.relayed()
