"""How much a node writes into its log: below 1 MB a day at the default level. Pure.

Rounds come every few seconds, and their lines alone would be 10 MB a day. So the file leaves out
what goes as it should (`ROUTINE`), and a summary of the verdict takes its place. Whatever else
happens, a bucket bounds the bytes: strangers can cause warnings, too.
"""

from __future__ import annotations

from protocol.rate_limiter import RateLimiter

# The name of the mark of a record that tells of a round without trouble.
ROUTINE = "routine"
# 0.6 MB a day, and what a bad hour needs at once: 0.9 MB on the worst day.
BYTES_PER_S = 7.0
BURST_BYTES = 300_000


class LogBudget:
    """Counts what was written, and what was left out."""

    def __init__(self, now: float) -> None:
        """`now` is monotonic, in seconds."""
        self._bucket = RateLimiter(per_s=BYTES_PER_S, burst=BURST_BYTES, now=now)
        self._left_out = 0

    def allows(self, size_bytes: int, *, is_error: bool, now: float) -> bool:
        """Whether a line of this size is written. Errors always are, and count."""
        if is_error:
            self._bucket.owe(size_bytes, now)
            return True
        allowed = self._bucket.spend(size_bytes, now)
        self._left_out += not allowed
        return allowed

    def note(self) -> str:
        """Return what to say about lines that were left out since the last note; else empty."""
        count, self._left_out = self._left_out, 0
        lines = "1 line" if count == 1 else f"{count:,} lines"
        return f"[{lines} before this one left out; hypergpud -v start logs all] " if count else ""
