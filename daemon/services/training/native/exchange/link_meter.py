"""What a node measures of its own link: bits a second up and down, from the transfers of its
rounds.
"""

from __future__ import annotations

from collections import deque

import trio

# Transfers; the fastest of them counts, since each is only as fast as its slower end.
KEPT = 8
# Shorter transfers say more of buffers and of the scheduler than of the link.
LEAST_S = 0.2
LEAST_BYTES = 1 << 18


class LinkMeter:
    """One direction.

    A transfer lasts from the first stream that is busy to the last; idle time between two transfers
    does not count.
    """

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=KEPT)
        self._busy = 0
        self._bytes = 0
        self._began_s = 0.0

    @property
    def bps(self) -> int:
        """Bits per second; 0 until something was measured."""
        return int(max(self._seen, default=0.0))

    def begin(self) -> None:
        """A stream has something to move."""
        if self._busy == 0:
            self._bytes, self._began_s = 0, trio.current_time()
        self._busy += 1

    def end(self, moved_bytes: int) -> None:
        """It is done with it, or gave it up after so many bytes."""
        self._busy -= 1
        self._bytes += moved_bytes
        if self._busy == 0:
            seconds = trio.current_time() - self._began_s
            if seconds >= LEAST_S and self._bytes >= LEAST_BYTES:
                self._seen.append(8 * self._bytes / seconds)
