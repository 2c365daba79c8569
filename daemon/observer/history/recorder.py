"""From the journal to the feed and the store.

The recorder listens to the journal of an observer. It adds each sentence that the page would show
to the feed, with the round that it is about, and gives it to the store.

A restarted observer verifies all certificates again. Those that the store holds keep their first
date and are no new events.
"""

from __future__ import annotations

from collections import OrderedDict

from daemon.journal import Journal
from daemon.observer.history.event_feed import EventFeed
from daemon.observer.history.feed_event import Kind
from daemon.observer.history.history_store import HistoryStore
from protocol import journal
from protocol.journal import JournalEvent
from protocol.status import EventLog, RoundSummary

REMEMBERED = 200
"""Rounds whose held-out score may still change: scores arrive within a few rounds."""

_PEERS = (journal.PeerUp, journal.PeerDown, journal.PeerForgotten, journal.PeerRegistered)
_TRAINING = (
    journal.TrainerReady,
    journal.TrainerStopped,
    journal.TrainingHeld,
    journal.BatchSkipped,
    journal.Trained,
)
# Measurements and phases: the page's list leaves them out, too.
_QUIET = (journal.PhaseEntered, journal.AnchorScored, journal.Planned)


def kind_of(event: JournalEvent) -> Kind:
    """Return what an event is about."""
    if isinstance(event, journal.RoundCertified | journal.RoundAveraged):
        return "round"
    if isinstance(event, journal.ViewPassed):
        return "try"
    if isinstance(event, _PEERS):
        return "peer"
    return "training" if isinstance(event, _TRAINING) else "notice"


class HistoryRecorder:
    """Feeds one journal's events on. Belongs to the thread of the journal."""

    def __init__(
        self,
        feed: EventFeed,
        store: HistoryStore | None,
        known: dict[str, float],
        journal: Journal,
    ) -> None:
        """`known` has the dates of the stored certificates."""
        self._feed, self._store, self._journal = feed, store, journal
        self._known = known
        self._log = EventLog()
        self._scores: OrderedDict[str, tuple[float | None, int]] = OrderedDict()

    def date_of(self, event: JournalEvent) -> float | None:
        """Return when a certificate was first seen; None for a new one, and for other events."""
        if isinstance(event, journal.RoundCertified):
            return self._known.get(event.certificate)
        return None

    def heard(self, event: JournalEvent) -> None:
        """Add an event that the journal has recorded and folded."""
        if not event.durable or isinstance(event, _QUIET):
            return
        described = self._log.describe(event, self._journal.name_of)
        if described is None:
            return
        kind, shown = kind_of(event), None
        if isinstance(event, journal.RoundCertified):
            if event.certificate in self._known:
                return
            self._known[event.certificate] = event.at
        if kind in ("round", "try"):
            shown = self._journal.newest_round()
        level, text = described
        added = self._feed.add(at=event.at, kind=kind, level=level, text=text, round=shown)
        if self._store is not None:
            self._store.add(added)

    def scored(self, rounds: tuple[RoundSummary, ...]) -> None:
        """Store the held-out scores that rounds got since the last call."""
        if self._store is None:
            return
        for one in rounds:
            score = (one.held_out, one.held_out_scorers)
            if (
                not one.certificate
                or one.held_out is None
                or self._scores.get(one.certificate) == score
            ):
                continue
            self._scores[one.certificate] = score
            self._store.add(one)
        while len(self._scores) > REMEMBERED:
            self._scores.popitem(last=False)
