"""How much one peer may cost us: a bucket that empties as it asks for things and fills again with
time.

Pure: time is an argument. Whoever keeps one for each peer keeps a bounded number: keys are free,
and who comes back under another one begins with a full bucket, which is why a bucket bounds what
one connection costs and not what a crowd does.
"""

from __future__ import annotations

from collections import OrderedDict

from protocol.identity import PeerId

# The ones heard of longest ago are forgotten: as many as a run of a thousand has.
KEPT_PEERS = 1024


class RateLimiter:
    """`burst` at once, `per_s` in the long run; full at the start."""

    def __init__(self, *, per_s: float, burst: float, now: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._left, self._at = burst, now

    def left(self, now: float) -> float:
        """What may be taken now."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._per_s)
        self._at = now
        return self._left

    def take(self, amount: float, now: float) -> bool:
        """Takes `amount`, or nothing where less is left."""
        if self.left(now) < amount:
            return False
        self._left -= amount
        return True

    def give_back(self, amount: float, now: float) -> None:
        """What was taken turned out to cost nothing."""
        self._left = min(self._burst, self.left(now) + amount)

    def owe(self, amount: float, now: float) -> float:
        """Takes `amount` even where less is left.

        Returns for how many seconds whoever caused it should wait then; 0 while nothing is owed.
        """
        self._left = self.left(now) - amount
        return max(0.0, -self._left / self._per_s)


class RateLimiters:
    """One for each peer, by when it was last asked for."""

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
