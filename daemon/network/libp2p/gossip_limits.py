"""What each peer may bring to gossip, in messages, bytes and remembered ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.tools.timed_cache.last_seen_cache import LastSeenCache

from protocol.identity import PeerId
from protocol.rate_limiter import RateLimiters

# Messages from one peer: 1,000 members with a beacon every 10 s are 100/s.
RATE_MESSAGES_PER_S, BURST_MESSAGES = 500.0, 2000.0
# Bytes from one peer.
RATE_BYTES_PER_S, BURST_BYTES = float(8 << 20), float(32 << 20)
# Message ids remembered, 100 bytes each: two minutes of what one peer may bring.
SEEN_MESSAGES = 1 << 16


class GossipRates:
    """Rate limiters for the messages and the bytes of each peer."""

    def __init__(self) -> None:
        self._messages = RateLimiters(per_s=RATE_MESSAGES_PER_S, burst=BURST_MESSAGES)
        self._bytes = RateLimiters(per_s=RATE_BYTES_PER_S, burst=BURST_BYTES)

    def charge(self, bringer: PeerId, messages: float, size_bytes: int) -> float:
        """Count what a peer brought.

        Returns:
            For how many seconds to ignore this peer; 0 while it is within its rates.
        """
        now = trio.current_time()
        return max(
            self._messages.of(bringer, now).owe(messages, now),
            self._bytes.of(bringer, now).owe(size_bytes, now),
        )


class ThrottledStream:
    """A gossip stream whose reader waits while its peer is above its rates.

    The library would make a task of every message that it reads.
    """

    def __init__(self, stream: Any, owed_s: Callable[[], float]) -> None:
        """`owed_s` gives the seconds for which the peer must not be read."""
        self._stream, self._owed_s = stream, owed_s
        self._scope = trio.CancelScope()
        self.superseded = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def supersede(self) -> None:
        """End the stream for its reader, because the peer opened a newer one."""
        self.superseded = True
        self._scope.cancel()

    async def read(self, n: int | None = None) -> bytes:
        with trio.CancelScope() as self._scope:
            while not self.superseded and (owed_s := self._owed_s()) > 0:
                await trio.sleep(owed_s)
            if not self.superseded:
                data: bytes = await self._stream.read(n)
                return data
        raise StreamEOF("a newer stream of the same peer replaces this one")


class BoundedSeenCache(LastSeenCache):
    """The library's cache of message ids with a limit: the id remembered first makes room."""

    def add(self, key: bytes) -> bool:
        new: bool = super().add(key)
        # The lock is needed because a thread of the library's sweeps the cache now and then.
        with self.lock:
            while len(self.cache) > SEEN_MESSAGES:
                del self.cache[next(iter(self.cache))]
        return new
