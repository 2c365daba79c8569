"""Reads the certificates of this node's lineage back from its disk.

Figures of money and reputation are computed from them. A node appends each certificate that it
adopts to its chain on disk, and the record of a merge contains the other branch's certificates.
Record numbers grow, so a reader that continues after the last number misses nothing and reads
nothing twice, across restarts and merges.

A node that leaves its branch, for another one or for the owner's recovery, writes from an earlier
number on. The last record that the reader read is then gone. The reader begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

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
# the reader.
READ_AT_ONCE = 64

# The interval between looks for new certificates. A heartbeat comes every 100 s, and a report every
# minute.
LOOK_S = 2.0

CertificateHandler = Callable[[Sequence[OpenCertificate]], None]


class _Read(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one look.

    `unreadable` says why reading ended before the last record; "" if it did not.
    """

    certificates: tuple[OpenCertificate, ...]
    unreadable: str = ""
    # The record of the last certificate; None without any.
    last: bytes | None = None


class CertifiedFeed:
    """Passes the certificates of one run to each of `handlers`, in order.

    The certificates on disk come first, and each later one once it is written.
    """

    def __init__(
        self,
        disk: Disk,
        signed: SignedManifest,
        offload: Offload,
        record: Callable[[JournalEvent], None],
        handlers: Sequence[CertificateHandler],
        begin_anew: Callable[[], None] = lambda: None,
    ) -> None:
        """`begin_anew` is called before all certificates come once more: the branch was left."""
        self._disk, self._run, self._manifest, self._offload = (
            disk,
            signed.run,
            signed.open(),
            offload,
        )
        self._record, self._handlers = record, tuple(handlers)
        self._begin_anew = begin_anew
        self._next = 1
        # The last record that was read; it has the number before `_next`.
        self._last: bytes | None = None
        # Set while the disk cannot be read.
        self._waiting = False
        self.caught_up = trio.Event()
        """Set once the handlers have all certificates that were on disk at the start."""

    async def run(self) -> None:
        """Read until cancelled.

        At a certificate that cannot be read, the feed warns and ends, since later figures would
        lack what that certificate counts.
        """
        while await self._read_or_wait():
            await trio.sleep(LOOK_S)
        self.caught_up.set()

    async def _read_or_wait(self) -> bool:
        """Read as `_read` does, and try again later, with one warning, if the disk fails."""
        try:
            more = await self._read()
        except UserError as unread:
            if unread.code != "DAMAGED":
                raise
            if not self._waiting:
                self._warn(f"{unread.what} Retrying ({unread.why}).")
            self._waiting = True
            return True
        self._waiting = False
        self.caught_up.set()
        return more

    def _warn(self, what: str) -> None:
        self._record(
            Warned(
                code="FIGURES",
                message=f"{what} Samples and reputation are counted up to certificate "
                f"{self._next - 1}.",
            )
        )

    async def _read(self) -> bool:
        """Pass on new certificates. Returns whether more may come later."""
        if self._last is not None and self._last not in await self._disk.certificates(
            self._run, self._next - 1, 1
        ):
            self._next, self._last = 1, None
            self._begin_anew()
        while records := await self._disk.certificates(self._run, self._next, READ_AT_ONCE):
            found = await self._offload(partial(self._open, tuple(records)))
            if found.certificates:
                self._next = max(self._next, found.certificates[-1].outcome.number + 1)
                self._last = found.last
                for handle in self._handlers:
                    handle(found.certificates)
            if found.unreadable:
                self._warn(f"A certificate on disk cannot be read ({found.unreadable}).")
                return False
            if len(records) < READ_AT_ONCE or not found.certificates:
                break
        return True

    def _open(self, records: Sequence[bytes]) -> _Read:
        certificates: list[OpenCertificate] = []
        last: bytes | None = None
        for record in records:
            try:
                certificates += opened_record(record, self._run, self._manifest)
            except PeerFault as fault:
                return _Read(certificates=tuple(certificates), unreadable=str(fault), last=last)
            last = record
        return _Read(certificates=tuple(certificates), last=last)
