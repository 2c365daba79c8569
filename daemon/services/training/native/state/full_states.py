"""Decides when a node writes its full state: anchor, momentum, inner state and ledger.

Certificates and the results of rounds are durable by themselves (`result_store.py`), so a full
state only shortens the way of a restart. It is written every few minutes. A limit on the bytes
written in an hour makes it rarer, and never loses anything certified.

Three members keep the results of a round. Where all of them are gone, nobody could come from an
older full state to the tip any more, and a power cut would take the rest of the run back to that
state. A full state is then due at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from daemon.services.training.native.engine_context import ALONE_STATE_S, DiskRules
from protocol.identity import PeerId
from protocol.journal import JournalEvent, Warned

HOUR_S = 3600.0
# Certificates since the last full state, after which one is written whatever the limit. A lineage
# keeps 512, and a restart can replay no certificate that it has forgotten.
MOST_CERTIFICATES = 256


class FullStates:
    """When the last full state was written, and what a disk wrote in the last hour."""

    def __init__(
        self,
        rules: DiskRules,
        written_bytes: Callable[[], int],
        record: Callable[[JournalEvent], None],
    ) -> None:
        self._rules, self._written_bytes, self._record = rules, written_bytes, record
        # The certificate of the last full state on disk; None where there is none.
        self.number: int | None = None
        # Whether a restart could not come from the last full state to this node's tip.
        self.needed = False
        # Whether a peer is heard now.
        self.lives: Callable[[PeerId], bool] = lambda _: True
        # By number: who else keeps the results of a certificate since the last full state.
        self._kept_by: dict[int, frozenset[PeerId]] = {}
        self._written_at: float | None = None
        self._warned_at = -HOUR_S
        # (time, bytes written since the start) about once a minute of the last hour.
        self._history: deque[tuple[float, int]] = deque()

    def resumed(self, number: int, now: float) -> None:
        """Note that the node began from a full state on disk."""
        self.number, self._written_at = number, now

    def written(self, number: int, now: float) -> None:
        """Note that a full state is durable."""
        self.number, self._written_at, self.needed = number, now, False
        self._kept_by = {each: kept for each, kept in self._kept_by.items() if each > number}

    def kept_elsewhere(self, number: int, keepers: frozenset[PeerId]) -> None:
        """Note that only these peers made the results of certificate `number` durable."""
        self._kept_by[number] = keepers

    def _is_out_of_reach(self) -> bool:
        """Return whether all who keep the results of one certificate are gone."""
        return any(not any(map(self.lives, keepers)) for keepers in self._kept_by.values())

    def hourly_bytes(self, now: float) -> int:
        """Return what the disk wrote in the last hour."""
        total = self._written_bytes()
        if not self._history or now - self._history[-1][0] >= HOUR_S / 60:
            self._history.append((now, total))
        while len(self._history) > 1 and self._history[1][0] <= now - HOUR_S:
            self._history.popleft()
        return total - self._history[0][1]

    def is_due(self, tip_number: int, size_bytes: int, now: float, *, alone: bool = False) -> bool:
        """Return whether to write a full state of `size_bytes` now.

        `alone` says that nothing was certified for a while, so no other node holds this work.
        """
        hourly = self.hourly_bytes(now)
        if self.needed or self.number is None or self._written_at is None:
            return True
        if self.number == 0 < tip_number:
            # The first certified model can be exported at once.
            return True
        if tip_number - self.number >= MOST_CERTIFICATES:
            return True
        if self._is_out_of_reach():
            return True
        spacing_s = self._rules.full_state_s
        if now - self._written_at < (min(spacing_s, ALONE_STATE_S) if alone else spacing_s):
            return False
        limit = self._rules.hourly_bytes
        if not limit or hourly + size_bytes <= limit:
            return True
        if now - self._warned_at >= HOUR_S:
            self._warned_at = now
            self._record(
                Warned(
                    code="DISK_LIMIT",
                    message=f"This node wrote {hourly / 1e9:.1f} GB in the last hour, and its limit"
                    f" is {limit / 1e9:g} GB. It writes its full state less often; a restart takes"
                    " longer. Nothing certified is lost.",
                )
            )
        return False
