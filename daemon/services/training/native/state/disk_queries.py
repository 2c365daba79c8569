"""What a running node gives others from its disk: what can be read now, and nothing meanwhile."""

from __future__ import annotations

from daemon.swarm.chain_sync import unpack_record
from protocol.digest import Digest
from protocol.errors import UserError
from protocol.ports.disk import Disk


async def readable_records(disk: Disk, run: Digest, first: int, limit: int) -> list[bytes]:
    """Up to `limit` records of certificates from number `first` on.

    Returns none while the disk cannot be read. The disk has said so, and the next question reads it
    again: what others ask for never ends a node.
    """
    try:
        return await disk.certificates(run, first, limit)
    except UserError as unread:
        if unread.code != "DAMAGED":
            raise
        return []


async def readable_certificates(disk: Disk, run: Digest, number: int) -> list[bytes]:
    """The certificates in the record of that number; none while the disk cannot be read."""
    return [
        raw
        for record in await readable_records(disk, run, number, 1)
        for raw in unpack_record(record)
    ]
