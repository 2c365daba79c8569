"""Records whether the connected voters may certify (rules 4)."""

from __future__ import annotations

from collections.abc import Callable

from protocol.journal import JournalEvent, QuorumReport
from protocol.round import events as e
from protocol.round.phase import Phase
from protocol.round.quorum import missing_quorum, patience_of, voters_among
from protocol.round.state import RoundState


class QuorumLog:
    """The votes behind one node's certificates, as its journal tells them."""

    def __init__(self, tip_number: int, record: Callable[[JournalEvent], None]) -> None:
        """`tip_number` is the certificate with which the node starts, which counts as full."""
        self._record = record
        self._last_full, self._full = tip_number, True
        self._last: QuorumReport | None = None

    def moved(self, event: e.Event, before: RoundState, after: RoundState, now: float) -> None:
        """Note an event of the round machine, with the states before and after it."""
        if after.tip.record is None:
            return
        if isinstance(event, e.CertificateAdopted):
            self._full = event.full
            if event.full:
                self._last_full = after.tip.number
            # A node that has just moved has not heard the others at its new tip yet.
            self._report(after, now, reason="", connected=None)
        elif after.phase is Phase.TRAIN and before.phase in (Phase.OFFER, Phase.READY):
            live = after.live - after.lost
            reason = missing_quorum(after, live, now)
            self._report(
                after, now, reason=reason, connected=voters_among(after, {*live, after.context.me})
            )

    def _report(self, state: RoundState, now: float, *, reason: str, connected: int | None) -> None:
        patience = patience_of(state)
        if patience is None:
            return
        voters = patience.voters
        present = voters if connected is None else connected
        report = QuorumReport(
            voters=voters,
            connected=present,
            needed=voters // 2 + 1,
            patient=patience.is_patient(min(2, voters), now),
            last_full=self._last_full,
            full=self._full,
            reason=reason,
        )
        if report != self._last:
            self._last = report
            self._record(report)
