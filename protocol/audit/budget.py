"""How often a voter audits: within 5% of its time and of its link."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

AUDIT_SHARE = 0.05
"""The share of a voter's time, and of the bytes that its rounds move, for audits."""

SPARE_BYTES_PER_S = 4096
"""What audits may move in any case, in bytes a second: 0.03 Mbit/s, which no link feels.

A small model's contribution is fetched whole, which is a large share of what its rounds move.
"""


FIRST_AUDIT_S = 5.0
"""What the first audit of a voter may cost at once; a dearer one waits until the share affords it.

An audit measures 2,048 samples. A voter of 20 samples/s, which measures 60, stood still for 34 s.
"""


class AuditBudget(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of a voter's audits since `began_s`. Times are seconds of one monotonic clock."""

    began_s: float
    limit: float = AUDIT_SHARE
    spent_s: float = 0.0
    moved_bytes: int = 0
    # The bytes of this voter's own offers since `began_s`, which its rounds move.
    offered_bytes: int = 0

    def affords(self, now_s: float, expected_s: float) -> bool:
        """Return whether another audit may begin.

        The first audit of a voter comes at once where it costs little. Later ones wait until the
        share holds again.

        Args:
            now_s: The time.
            expected_s: What an audit takes, by the speed of training.
        """
        elapsed_s = now_s - self.began_s
        affordable_s = self.limit * elapsed_s
        if not self.spent_s and expected_s > max(FIRST_AUDIT_S, affordable_s):
            return False
        return (
            self.spent_s <= affordable_s
            and self.moved_bytes
            <= 2 * self.limit * self.offered_bytes + SPARE_BYTES_PER_S * elapsed_s
        )

    def offered(self, size_bytes: int) -> AuditBudget:
        """Return the budget after a round in which this voter sent an offer of this size."""
        return replace(self, offered_bytes=self.offered_bytes + size_bytes)

    def audited(self, *, seconds: float, size_bytes: int) -> AuditBudget:
        """Return the budget after an audit."""
        return replace(
            self,
            spent_s=self.spent_s + seconds,
            moved_bytes=self.moved_bytes + size_bytes,
        )
