"""The history of an observer: opens the store, feeds it, and reports its trouble."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from daemon.journal import Journal
from daemon.observer.bridge import Bridge
from daemon.observer.history.history_store import HistoryStore, HistoryUnavailable
from daemon.observer.history.recorder import HistoryRecorder
from daemon.system.offload import in_thread
from protocol.digest import Digest
from protocol.journal import Trouble, Warned
from protocol.status import Status

FOLDER = "history"
TROUBLE = "HISTORY"
# Digits of the run's id in the file's name: two runs of one home never share a file.
NAME_DIGITS = 32


def history_file(home: Path, run: Digest) -> Path:
    """Return the path of the history of one run."""
    return home / FOLDER / f"{run.hex()[:NAME_DIGITS]}.sqlite"


class ObserverHistory:
    """The recorder of one observer, and what its store reports."""

    def __init__(
        self, recorder: HistoryRecorder, store: HistoryStore | None, journal: Journal
    ) -> None:
        self.recorder = recorder
        self._store, self._journal = store, journal
        self._told = ""

    def published(self, status: Status) -> None:
        """Store what changed in a status, and report trouble of the store once."""
        self.recorder.scored(status.rounds)
        trouble = self._store.trouble if self._store is not None else ""
        if trouble != self._told:
            self._told = trouble
            message = f"{trouble}; the page shows what is in memory" if trouble else ""
            self._journal.record(Trouble(code=TROUBLE, level="warning", message=message))


@asynccontextmanager
async def observer_history(
    bridge: Bridge, journal: Journal, path: Path, limit_mb: int
) -> AsyncIterator[ObserverHistory]:
    """Record the journal while the block runs; without a limit, only in memory."""
    store = HistoryStore(path, limit_mb * 1_000_000) if limit_mb else None
    known: dict[str, float] = {}
    if store is not None:
        known = await in_thread(lambda: _open(store, bridge))
        bridge.store = store
    recorder = HistoryRecorder(bridge.feed, store, known, journal)
    journal.add_listener(recorder.heard)
    if store is not None and store.set_aside is not None:
        message = f"The history was damaged and is set aside as {store.set_aside}; a new one begins"
        journal.record(Warned(code=TROUBLE, message=message))
    try:
        yield ObserverHistory(recorder, store, journal)
    finally:
        if store is not None:
            # A write lasts a second where another program holds the file.
            with trio.CancelScope(shield=True):
                await in_thread(store.close)


def _open(store: HistoryStore, bridge: Bridge) -> dict[str, float]:
    """Open the store; return the dates of its certificates, none where it cannot be read."""
    store.open()
    try:
        bridge.feed.start_after(store.last_id())
        return store.dates()
    except HistoryUnavailable:
        # `trouble` of the store says why.
        return {}
