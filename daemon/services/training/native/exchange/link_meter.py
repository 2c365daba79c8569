"""Measures a node's own link, from the transfers of its rounds."""

from __future__ import annotations

from collections import deque

import trio

# The number of transfers kept. The fastest counts, because the slower end limits each transfer.
TRANSFERS_KEPT = 8
# Shorter transfers measure buffers and the scheduler rather than the link.
LEAST_S = 0.2
LEAST_BYTES = 1 << 18


def link_use(size_bytes: int, seconds: float, most_bps: int) -> float:
    """Return the share of a link's measured rate that a transfer used; 0 without a rate."""
    return 8 * size_bytes / seconds / most_bps if most_bps and seconds > 0 else 0.0


class LinkMeter:
    """Measures one direction of the link.

    A transfer begins when the first stream becomes busy and ends when the last one becomes idle.
    Idle time between two transfers does not count.
    """

    def __init__(self) -> None:
        self._rates_bps: deque[float] = deque(maxlen=TRANSFERS_KEPT)
        self._busy = 0
        self._bytes = 0
        self._began_s = 0.0

    @property
    def bps(self) -> int:
        """The measured rate in bits per second; 0 until a transfer was long enough."""
        return int(max(self._rates_bps, default=0.0))

    def begin(self) -> None:
        """Count a stream that becomes busy."""
        if self._busy == 0:
            self._bytes, self._began_s = 0, trio.current_time()
        self._busy += 1

    def end(self, size_bytes: int) -> None:
        """Count a stream that becomes idle, after these bytes."""
        self._busy -= 1
        self._bytes += size_bytes
        if self._busy == 0:
            seconds = trio.current_time() - self._began_s
            if self._bytes < LEAST_BYTES:
                return
            if seconds >= LEAST_S:
                self._rates_bps.append(8 * self._bytes / seconds)
            elif 8 * self._bytes / LEAST_S > self.bps > 0:
                # Too quick to measure, but the link is at least this fast. Without this, a link
                # that became faster would keep its old rate for ever.
                self._rates_bps.append(8 * self._bytes / LEAST_S)
