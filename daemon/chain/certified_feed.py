"""The certificates of this node's lineage, read back from its disk: what figures of money and
reputation are computed from.

A node appends each certificate that it adopts to its chain on disk, and the record of a merge
carries the other branch's certificates. Numbers only grow there, so a reader that goes on from the
last number misses nothing and reads nothing twice, across restarts and merges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import trio

from daemon.chain.home_runs import opened_record
from protocol.certificates.certificate import OpenCertificate
from protocol.errors import PeerFault, UserError
from protocol.journal import JournalEvent, Warned
from protocol.ports.disk import Disk
from protocol.ports.offload import Offload
from protocol.run.manifest import SignedManifest

# Records. Opening one takes 15 us with four members, and the event loop shares the interpreter with
# it.
READ_AT_ONCE = 64

# Between looks for new certificates. A heartbeat comes every 100 s and a report every minute.
LOOK_S = 2.0

CertificateHandler = Callable[[Sequence[OpenCertificate]], None]


class _Read(msgspec.Struct, frozen=True, kw_only=True):
    """What one look found.

    `unreadable` says why the reading ends before the last record; empty when it does not.
    """

    certificates: tuple[OpenCertificate, ...]
    unreadable: str = ""


class CertifiedFeed:
    """Hands the certificates of one run to each of `takers`: those on disk first, then each one as
    it is written.
    """

    def __init__(
        self,
        disk: Disk,
        signed: SignedManifest,
        offload: Offload,
        record: Callable[[JournalEvent], None],
        takers: Sequence[CertificateHandler],
    ) -> None:
        self._disk, self._run, self._manifest, self._offload = (
            disk,
            signed.run,
            signed.open(),
            offload,
        )
        self._record, self._takers = record, tuple(takers)
        self._next = 1
        self._waiting = False  # for a disk that cannot be read now
        self.caught_up = trio.Event()
        """Set once the takers have everything that was on disk at the start."""

    async def run(self) -> None:
        """Until cancelled.

        Stops at a certificate that does not read back, with a warning: what follows from it is not
        known.
        """
        while await self._read_or_wait():
            await trio.sleep(LOOK_S)
        self.caught_up.set()

    async def _read_or_wait(self) -> bool:
        """As `_read`. A disk that cannot be read now is read again later, with one warning."""
        try:
            more = await self._read()
        except UserError as unread:
            if unread.code != "DAMAGED":
                raise
            if not self._waiting:
                self._warn(f"{unread.what} It is tried again ({unread.why}).")
            self._waiting = True
            return True
        self._waiting = False
        self.caught_up.set()
        return more

    def _warn(self, what: str) -> None:
        self._record(
            Warned(
                code="FIGURES",
                message=f"{what} Samples and reputation count up to certificate {self._next - 1}.",
            )
        )

    async def _read(self) -> bool:
        """Hand over what is new. Whether there may be more later."""
        while records := await self._disk.certificates(self._run, self._next, READ_AT_ONCE):
            found = await self._offload(lambda batch=tuple(records): self._open(batch))
            if found.certificates:
                self._next = max(self._next, found.certificates[-1].outcome.number + 1)
                for take in self._takers:
                    take(found.certificates)
            if found.unreadable:
                self._warn(f"A certificate on disk does not read back ({found.unreadable}).")
                return False
            if len(records) < READ_AT_ONCE or not found.certificates:
                break
        return True

    def _open(self, records: Sequence[bytes]) -> _Read:
        certificates: list[OpenCertificate] = []
        for record in records:
            try:
                certificates += opened_record(record, self._run, self._manifest)
            except PeerFault as fault:
                return _Read(certificates=tuple(certificates), unreadable=str(fault))
        return _Read(certificates=tuple(certificates))
