"""How fast one peer gives the pieces that it was asked for, and whether another may take over."""

from __future__ import annotations

from collections import deque

# Without a byte for this long, a peer is taken to give nothing more. TCP repeats a lost segment
# after 1 s at first (RFC 6298), then after 2 s.
STALLED_S = 5.0
# A peer takes over from one that is slower by this factor. Peers that share one downlink are about
# equally fast: between them a second copy of each piece only takes the room of the first.
TIMES_FASTER = 4.0


class PieceSource:
    """One peer during one download. Times are of the caller's clock, in seconds."""

    def __init__(self, now: float) -> None:
        # The pieces that the peer is asked for, in the order in which it gives them.
        self.asked: deque[int] = deque()
        self._began_at = self._advanced_at = now
        self._whole_bytes = self._partial_bytes = 0

    def note_partial(self, size_bytes: int, now: float) -> None:
        """Note the bytes of the next piece that have arrived so far."""
        if size_bytes > self._partial_bytes:
            self._partial_bytes, self._advanced_at = size_bytes, now

    def note_whole(self, size_bytes: int, now: float) -> None:
        """Note that the next piece is complete."""
        self._whole_bytes += size_bytes
        self._partial_bytes, self._advanced_at = 0, now

    def note_request(self, now: float) -> None:
        """Note a request. A peer that was asked for nothing before has not stalled since."""
        if not self.asked:
            self._advanced_at = now

    def is_outrun_by(self, other: PieceSource, now: float) -> bool:
        """Whether `other`, which is idle, should be asked for this peer's pieces too."""
        return now - self._advanced_at >= STALLED_S or self._bytes_per_s(
            now
        ) * TIMES_FASTER < other._bytes_per_s(other._advanced_at)

    def _bytes_per_s(self, until: float) -> float:
        seconds = until - self._began_at
        return (self._whole_bytes + self._partial_bytes) / seconds if seconds > 0 else 0.0
