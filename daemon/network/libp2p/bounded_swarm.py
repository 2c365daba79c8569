"""py-libp2p's swarm and peer store, with what strangers could multiply in them bounded.

- The library dials what a stranger names: peers in a PRUNE message or in a DHT answer, and names
  that it resolves. Here it dials nothing. `Host.dial` is the only way out, and
  `peers/dial_policy.py` decides about it.
- Its peer store keeps 1,000 peers with as many addresses as each claims, a megabyte in one record.
  Here it keeps `MAX_PEERS` peers with `MAX_ADDRESSES` each.
- It stores what a peer pushes by identify, up to 1,000 addresses. Here a push is read and dropped:
  signed records say where a peer is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio
from libp2p.abc import INetConn
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.envelope import Envelope
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from multiaddr import Multiaddr

from daemon.network.error_boundary import contain_errors

# Peers of which the library keeps addresses: those of the routing table and of connections.
MAX_PEERS = 512
# Addresses of one peer. Our own records hold as many at most.
MAX_ADDRESSES = 8
# One address: a DNS name of 63 characters, a port and a peer id.
MAX_ADDRESS_BYTES = 160
PUSH_TIMEOUT_S = 5.0
# A pushed identify message is read up to here; then the stream is reset.
PUSH_BYTES = 1 << 16


class BoundedSwarm(Swarm):
    """A swarm that never dials by itself."""

    async def dial_peer(self, peer_id: ID) -> list[INetConn]:
        """The connections that are up. Raises `SwarmException` when there is none."""
        await trio.lowlevel.checkpoint()
        there = [
            connection for connection in self.get_connections(peer_id) if not connection.is_closed
        ]
        if not there:
            raise SwarmException(
                f"there is no connection to {peer_id}, and libp2p may not open one"
            )
        return there


class BoundedPeerStore(PeerStore):
    """A peer store whose size does not depend on what peers claim."""

    def __init__(self) -> None:
        super().__init__(max_records=MAX_PEERS, max_peers=MAX_PEERS)

    def consume_peer_record(self, envelope: Envelope, ttl: int) -> bool:
        addresses = envelope.record().addrs
        if len(addresses) > MAX_ADDRESSES or any(
            len(address.to_bytes()) > MAX_ADDRESS_BYTES for address in addresses
        ):
            return False
        accepted = super().consume_peer_record(envelope, ttl)
        if len(self.peer_record_map) > MAX_PEERS:
            self._enforce_record_limit()
        return accepted

    def add_addrs(self, peer_id: ID, addrs: Sequence[Multiaddr], ttl: int = 0) -> None:
        """Add addresses. The last `MAX_ADDRESSES` are kept."""
        fits = [address for address in addrs if len(address.to_bytes()) <= MAX_ADDRESS_BYTES][
            :MAX_ADDRESSES
        ]
        known = self.peer_data_map.get(peer_id)
        if known is not None and len({*known.get_addrs(), *fits}) > MAX_ADDRESSES:
            known.clear_addrs()
        super().add_addrs(peer_id, fits, ttl)


async def drop_push(stream: Any) -> None:
    """Read a pushed identify message and forget it."""
    with contain_errors("a pushed identify message"), trio.move_on_after(PUSH_TIMEOUT_S):
        left = PUSH_BYTES
        while left > 0 and (piece := await stream.read(min(left, 1 << 12))):
            left -= len(piece)
    with contain_errors("ending an identify stream"):
        await stream.close() if left > 0 else await stream.reset()
