"""The entry of one peer in the address book: where it may be and when it was met."""

from __future__ import annotations

from daemon.network.addresses import PeerAddress
from daemon.network.peers.peer_record import SignedPeerRecord
from protocol.identity import PeerId

# A peer that is not connected is handed on to others for this long after it was connected.
FRESH_S = 600.0

NEVER = float("-inf")


class AddressEntry:
    """What is known of one peer. Times are on the network's monotonic clock."""

    def __init__(self, peer: PeerId, source: PeerId = "") -> None:
        """`source` is the peer that named this one first; empty for the user."""
        self.peer = peer
        self.source = source
        # Addresses that the user gave.
        self.named: frozenset[PeerAddress] = frozenset()
        # Hosts at which the peer proved its key, the latest first.
        self.proven: list[str] = []
        self.addresses: list[PeerAddress] = []
        self.keys: frozenset[bytes] = frozenset()
        self.signed: SignedPeerRecord | None = None
        self.seq = -1
        self.join = False
        self.connected_at = NEVER
        self.failures = 0
        self.not_before = NEVER

    def is_recent(self, connected: set[PeerId], now: float) -> bool:
        """Whether the peer is connected, or was within `FRESH_S`."""
        return self.peer in connected or now - self.connected_at < FRESH_S

    def may_provide(self, keys: frozenset[bytes]) -> bool:
        """Whether the peer may be in one of these runs, as far as is known."""
        return not (keys and self.keys and not keys & self.keys)
