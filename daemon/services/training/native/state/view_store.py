"""Stores which views a node has used, by round.

A node makes the use of a view durable before it sends anything in that view. After a restart in the
middle of a round it goes on in the next view, so it never votes twice in one view.
"""

from __future__ import annotations

from collections.abc import Mapping

from protocol.digest import Digest
from protocol.ports.disk import VIEW_RECORDS_KEPT, Disk
from protocol.ports.disk_records import ViewRecord


class ViewStore:
    """The views of one node in one run, in memory and on disk."""

    def __init__(self, run: Digest, disk: Disk) -> None:
        self._run, self._disk = run, disk
        self._records: dict[Digest, int] = {}

    @property
    def records(self) -> Mapping[Digest, int]:
        """By parent: the first view in which this node has sent nothing that it may send only once.

        The latest record is the last.
        """
        return self._records

    async def resume(self) -> None:
        """Read the records from disk."""
        records = await self._disk.load_view_records(self._run)
        self._records = {record.parent: record.view for record in records}

    async def persist(self, parent: Digest, view: int) -> None:
        """Make durable that `view` is used.

        Raises:
            DiskFull: The use is not durable, and nothing may be sent in the view.
        """
        if self._records.get(parent, 0) > view:
            return
        others = [(known, free) for known, free in self._records.items() if known != parent]
        records = {**dict(others[1 - VIEW_RECORDS_KEPT :]), parent: view + 1}
        await self._disk.save_view_records(
            self._run, [ViewRecord(parent=known, view=free) for known, free in records.items()]
        )
        self._records = records
