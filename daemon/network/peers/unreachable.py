"""The peers to which every path failed lately.

Pure: time is an argument.
"""

from __future__ import annotations

from protocol.identity import PeerId

# A failed peer is tried again within a minute at the latest (`address_book.BACKOFF_S`), so that a
# failure which still holds is noted again before it is forgotten.
KEPT_S = 90.0
# As many as a plan has members, four times.
MAX_PEERS = 256


class UnreachablePeers:
    """Failures by peer, each kept for `KEPT_S` or until a path led to the peer."""

    def __init__(self) -> None:
        # The oldest failure comes first.
        self._failed_at: dict[PeerId, float] = {}

    def note(self, peer: PeerId, now: float) -> None:
        """Note that every path to a peer failed."""
        self._failed_at.pop(peer, None)
        self._failed_at[peer] = now
        if len(self._failed_at) > MAX_PEERS:
            del self._failed_at[next(iter(self._failed_at))]

    def clear(self, peer: PeerId) -> None:
        """Note that a path leads to a peer."""
        self._failed_at.pop(peer, None)

    def now(self, now: float) -> frozenset[PeerId]:
        """The peers that count as unreachable."""
        return frozenset(peer for peer, at in self._failed_at.items() if now - at < KEPT_S)
