"""Reads from the disk what a running node serves; returns nothing while the disk is unreadable."""

from __future__ import annotations

from daemon.swarm.chain_sync import unpack_record
from protocol.digest import Digest
from protocol.errors import UserError
from protocol.ports.disk import Disk


async def readable_records(disk: Disk, run: Digest, first: int, limit: int) -> list[bytes]:
    """Return up to `limit` records of certificates from number `first` on.

    While the disk is unreadable the list is empty. The disk has reported the error, and the next
    request reads again: a peer's request never ends a node.
    """
    try:
        return await disk.certificates(run, first, limit)
    except UserError as unread:
        if unread.code != "DAMAGED":
            raise
        return []


async def readable_certificates(disk: Disk, run: Digest, number: int) -> list[bytes]:
    """Return the certificates in the record of that number; none while the disk is unreadable."""
    return [
        raw
        for record in await readable_records(disk, run, number, 1)
        for raw in unpack_record(record)
    ]
