"""Tells a node's person that nobody here knows the history that its invitation names."""

from __future__ import annotations

from collections.abc import Callable

from daemon.swarm.lineage import Lineage
from protocol.digest import Digest
from protocol.journal import JournalEvent, Trouble

CODE = "OTHER_HISTORY"
# A history of thousands of certificates arrives in parts, a few hundred a second.
ARRIVES_S = 60.0


class HistoryWatch:
    """Records one `Trouble` where only other histories are heard, and its end."""

    def __init__(self, lineage: Lineage, record: Callable[[JournalEvent], None]) -> None:
        self._lineage, self._record = lineage, record
        # Since when only other histories are known; None while that is not so.
        self._since: float | None = None
        self._said = False

    def look(self, now: float) -> None:
        """Judge what the lineage holds at `now`, in monotonic seconds."""
        missing = self._lineage.missing_required
        if missing is None:
            self._since = None
            if self._said:
                self._said = False
                self._record(Trouble(code=CODE, level="bad", message=""))
            return
        self._since = now if self._since is None else self._since
        if not self._said and now - self._since >= ARRIVES_S:
            self._said = True
            self._record(Trouble(code=CODE, level="bad", message=_message(missing)))


def _message(missing: Digest) -> str:
    return (
        f"No peer that this node hears has certificate {missing.hex()[:12]}, which its invitation"
        " names: they hold another history of the run, and this node follows none of them. Ask the"
        " run's owner for a new invitation."
    )
