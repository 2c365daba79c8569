"""Which peers come before strangers wherever something is scarce."""

from __future__ import annotations

from daemon.network.limits.prefixes import prefix_of
from daemon.network.peers.address_book import AddressBook
from daemon.network.peers.live_connections import LiveConnections
from protocol.identity import PeerId
from protocol.ports.network import Source


class PeerPriority:
    """Answers for each peer whether it matters, whether it is known, and where it comes from."""

    def __init__(self, book: AddressBook, connections: LiveConnections) -> None:
        self._book = book
        self._connections = connections
        self._kept: frozenset[PeerId] = frozenset()

    def keep(self, peers: frozenset[PeerId]) -> None:
        """From now on exactly these peers matter, and those that the user named."""
        self._kept = peers

    def matters(self, peer: PeerId) -> bool:
        """Whether the peer never makes room for a stranger."""
        return peer in self._kept or self._book.is_named(peer)

    def is_known(self, peer: PeerId) -> bool:
        """Whether the peer is connected or matters."""
        return peer in self._connections or self.matters(peer)

    def prefix_of(self, peer: PeerId) -> str:
        """The address prefix of a connected peer; empty for others."""
        return prefix_of(self._connections.host_of(peer))

    def source_of(self, peer: PeerId) -> Source:
        """Where the peer comes from, and whether it matters."""
        return Source(prefix=self.prefix_of(peer), matters=self.matters(peer))
