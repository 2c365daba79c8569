"""What a running node serves from its disk, and nothing while the disk cannot be read."""

from __future__ import annotations

from daemon.swarm.chain_sync import unpack_record
from protocol.digest import Digest
from protocol.errors import UserError
from protocol.ports.disk import Disk


async def readable_records(disk: Disk, run: Digest, first: int, limit: int) -> list[bytes]:
    """Up to `limit` records of certificates from number `first` on.

    None while the disk cannot be read: the disk has reported that, and the next request reads it
    again. What peers ask for never ends a node.
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
