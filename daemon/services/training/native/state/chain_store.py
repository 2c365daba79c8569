"""Reads the certificates on disk into the lineage, and sorts the checkpoints by them."""

from __future__ import annotations

import msgspec

from daemon.swarm.chain_sync import unpack_record
from daemon.swarm.lineage import Lineage
from protocol.certificates.certificate import hash_of, parents_of
from protocol.certificates.tip import Tip, decode_tip
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.ports.disk import Disk
from protocol.ports.disk_records import Checkpoint

# The number of records that one read of the disk returns.
CERTIFICATES_READ = 512


class OtherCheckpoints(msgspec.Struct, frozen=True, kw_only=True):
    """The tips of the other checkpoints on disk, by what becomes of the checkpoints."""

    # In the ancestry of the current tip.
    superseded: set[Digest]
    # On branches that this node has left.
    left: set[Digest]


class ChainStore:
    """One node's certificates on disk."""

    def __init__(self, run: Digest, disk: Disk, lineage: Lineage) -> None:
        self._run, self._disk, self._lineage = run, disk, lineage

    async def resume(self, checkpoint: Checkpoint | None) -> int:
        """Add every certificate on disk to the lineage.

        A lineage keeps only the last few hundred certificates from others. The chain of a node that
        joined late, or was offline for long, therefore has a gap before them. Such a chain is read
        from the checkpoint's tip on. A power cut may leave it without a checkpoint: it is then not
        read, and the members send it again. The lineage is set to the checkpoint's tip as soon as
        that tip is read, because more certificates may follow on disk than a lineage keeps.

        Returns:
            The number of the last certificate; 0 where there is none.

        Raises:
            UserError: "DAMAGED" where a certificate cannot be read.
        """
        first, more = 1, True
        stood = decode_tip(checkpoint.stood) if checkpoint else None
        while more and (
            batch := await self._disk.certificates(self._run, first, CERTIFICATES_READ)
        ):
            more = len(batch) == CERTIFICATES_READ
            for record in batch:
                try:
                    raws = unpack_record(record)
                    gap = any(
                        self._lineage.tip(parent) is None
                        for raw in raws[:1]
                        for parent in parents_of(raw)
                    )
                    if gap and stood is not None and self._lineage.tip(stood.hash) is None:
                        self._lineage.adopt(stood)
                        first, more = stood.number + 1, True
                        break
                    if gap and (checkpoint is None or self._lineage.tip(checkpoint.tip)):
                        return first - 1
                    first = max(first, self._add(raws, checkpoint) + 1)
                except PeerFault as fault:
                    raise self._disk.damage(
                        self._run, f"Certificate {first} on disk cannot be read: {fault}."
                    ) from None
        return first - 1

    def _add(self, raws: list[bytes], checkpoint: Checkpoint | None) -> int:
        """Add the certificates of one record; return the largest number."""
        number = 0
        for raw in raws:
            self._lineage.add(raw, trusted=True)
            made = self._lineage.entry(hash_of(self._run, raw))
            if made is None:
                raise PeerFault("bad_certificate", "no certificate before it is its parent")
            if checkpoint is not None and made.tip.hash == checkpoint.tip:
                self._lineage.adopt(made.tip)
            number = max(number, made.tip.number)
        return number

    async def other_checkpoints(self, tip: Tip) -> OtherCheckpoints:
        """Sort the other checkpoints on disk by the positions of their tips.

        The checkpoint of a tip that is neither in the ancestry of `tip` nor on a branch that was
        left is unknown, and stays.
        """
        superseded: set[Digest] = set()
        left: set[Digest] = set()
        for number, other in await self._disk.checkpoints(self._run):
            known = self._lineage.tip(other)
            if known is not None and self._lineage.descends(tip, known):
                superseded.add(other)
            elif known is not None and not self._lineage.descends(known, tip):
                left.add(other)
            elif (
                known is None
                and number < tip.number
                and other in await self._hashes_on_disk(number)
            ):
                superseded.add(other)
        return OtherCheckpoints(superseded=superseded, left=left)

    async def leave(self, tip: Tip) -> None:
        """Set the checkpoints aside that are not in the ancestry of `tip`. Raises `DiskFull`."""
        kept = await self._disk.checkpoints(self._run)
        left = {
            name
            for _, name in kept
            if (known := self._lineage.tip(name)) is None or not self._lineage.descends(tip, known)
        }
        if left:
            await self._disk.leave_checkpoints(self._run, left)

    async def append(self, tip: Tip, unwritten: list[tuple[int, bytes]]) -> bool:
        """Append records (number, record); remove each from `unwritten` once it is on disk.

        Returns:
            Whether the checkpoints of another branch were set aside for it.
        """
        if not unwritten:
            return False
        # Set these checkpoints aside before the certificates of their branch are removed: after a
        # crash between the two writes, the chain still names every other checkpoint.
        left = (await self.other_checkpoints(tip)).left
        if left:
            await self._disk.leave_checkpoints(self._run, left)
        while unwritten:
            number, record = unwritten[0]
            # A restart moves along certificates that are on disk. Appending one of them again would
            # first cut off all that follow it.
            if record not in await self._disk.certificates(self._run, number, 1):
                await self._disk.append_certificate(self._run, number, record)
            unwritten.pop(0)
        return bool(left)

    async def _hashes_on_disk(self, number: int) -> set[Digest]:
        """Return the hashes of the certificates in the record of that number."""
        records = await self._disk.certificates(self._run, number, 1)
        return {hash_of(self._run, raw) for record in records for raw in unpack_record(record)}
