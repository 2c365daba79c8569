"""Keeps the small records that a node replaces in every round: its views, its
ledger's mark, and since when it has held certificates.

Each run has a `slots_file` for each of them.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from daemon.disk.atomic import FaultHook
from daemon.disk.damage_reports import DamageReports, unreadable_run
from daemon.disk.run_folder import RunFolder
from daemon.disk.slots_file import LOST_HELD, LOST_MARK, LOST_VIEWS, SlotsFile
from protocol.digest import Digest
from protocol.messages.base import UNREADABLE
from protocol.ports.disk_records import HeldCertificate, LedgerMark, ViewRecord


class SlotRecords:
    """The small records of a home. Blocking; one thread at a time may use it."""

    def __init__(self, home: Path, fault: FaultHook, damage: DamageReports) -> None:
        self._home, self._fault, self._damage = home, fault, damage
        self._files: dict[Path, SlotsFile] = {}

    def views(self, run: Digest) -> SlotsFile:
        """Open the view records of a run. Raises `UserError("DAMAGED")`."""
        path = RunFolder(self._home, run).view_records
        return self._open(run, path, "The view records of this run cannot be read", LOST_VIEWS)

    def load_views(self, run: Digest) -> list[ViewRecord]:
        """Load the view records of a run; none where they are absent or damaged."""
        body = self.views(run).body
        return msgspec.msgpack.decode(body, type=list[ViewRecord]) if body else []

    def mark(self, run: Digest) -> SlotsFile:
        """Open the ledger's mark of a run. Raises `UserError("DAMAGED")`."""
        path = RunFolder(self._home, run).ledger_mark
        return self._open(run, path, "The ledger's mark of this run cannot be read", LOST_MARK)

    def load_mark(self, run: Digest) -> LedgerMark | None:
        """Load the ledger's mark; None where it is absent, damaged or of another release."""
        body = self.mark(run).body
        try:
            return msgspec.msgpack.decode(body, type=LedgerMark) if body else None
        except UNREADABLE:
            return None

    def held(self, run: Digest) -> SlotsFile:
        """Open the times of adoption of a run. Raises `UserError("DAMAGED")`."""
        path = RunFolder(self._home, run).held
        return self._open(run, path, "The times of adoption of this run cannot be read", LOST_HELD)

    def load_held(self, run: Digest) -> list[HeldCertificate]:
        """Load the times of adoption; none where they are absent, damaged or of another release."""
        body = self.held(run).body
        try:
            return msgspec.msgpack.decode(body, type=list[HeldCertificate]) if body else []
        except UNREADABLE:
            return []

    def _open(self, run: Digest, path: Path, what: str, lost: str) -> SlotsFile:
        slots = self._files.get(path)
        if slots is None:
            slots = SlotsFile(path, self._fault, self._damage.add, lost)
            if slots.unreadable:
                raise unreadable_run(self._home, run, f"{what} ({slots.unreadable}).", str(path))
            self._files[path] = slots
        return slots
