"""Rate limits: a token bucket per peer.

The limiters are pure: time is an argument. Keys are free, and a peer that returns under a new key
starts with a full bucket. So a bucket bounds the cost of one connection, not of a crowd, and the
number of buckets is bounded.
"""

from __future__ import annotations

from collections import OrderedDict

from protocol.identity import PeerId

# As many as a run of a thousand nodes has; the bucket used longest ago goes first.
KEPT_PEERS = 1024


class RateLimiter:
    """A token bucket: `burst` at once, `per_s` in the long run; full at the start."""

    def __init__(self, *, per_s: float, burst: float, now: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._left, self._at = burst, now

    def left(self, now: float) -> float:
        """The tokens available now."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._per_s)
        self._at = now
        return self._left

    def spend(self, amount: float, now: float) -> bool:
        """Spend `amount` and return True; spend nothing and return False where less is left."""
        if self.left(now) < amount:
            return False
        self._left -= amount
        return True

    def give_back(self, amount: float, now: float) -> None:
        """Return tokens that were spent for nothing."""
        self._left = min(self._burst, self.left(now) + amount)

    def owe(self, amount: float, now: float) -> float:
        """Spend `amount` even where less is left.

        Returns:
            The seconds that the peer should wait then; 0 while nothing is owed.
        """
        self._left = self.left(now) - amount
        return max(0.0, -self._left / self._per_s)


class RateLimiters:
    """One limiter for each peer; the one used longest ago is forgotten first."""

    def __init__(self, *, per_s: float, burst: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._peers: OrderedDict[PeerId, RateLimiter] = OrderedDict()

    def of(self, peer: PeerId, now: float) -> RateLimiter:
        if peer not in self._peers:
            self._peers[peer] = RateLimiter(per_s=self._per_s, burst=self._burst, now=now)
            while len(self._peers) > KEPT_PEERS:
                self._peers.popitem(last=False)
        self._peers.move_to_end(peer)
        return self._peers[peer]
