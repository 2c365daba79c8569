"""Keeps since when a node has held its certificates, in memory and on disk.

Memory has monotonic times, which no setting of the wall clock changes. The disk has times of day,
so that the hours between two lives count. Where the wall clock was set forward meanwhile, a
certificate becomes final too early: the node then stays on its branch and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import trio

from daemon.swarm.lineage import Lineage
from protocol.certificates.tip import Tip
from protocol.digest import Digest
from protocol.errors import UserError
from protocol.membership.finality import has_final, held_with, moved_to_clock
from protocol.ports.disk import Disk, DiskFull
from protocol.ports.disk_records import HeldCertificate


class HeldStore:
    """The times of adoption of one node in one run."""

    def __init__(
        self,
        *,
        run: Digest,
        disk: Disk,
        lineage: Lineage,
        wall_clock_s: Callable[[], float],
        warn: Callable[[str, str], None],
    ) -> None:
        """`warn` reports (code, message) what the node's owner should know."""
        self._run, self._disk, self._lineage = run, disk, lineage
        self._wall_clock_s, self._warn = wall_clock_s, warn
        self._held: Sequence[HeldCertificate] = ()
        # The names of the times on disk.
        self._written: list[Digest] = []

    async def resume(self, tip: Tip) -> None:
        """Read the times from disk, and go on at `tip`."""
        kept = await self._disk.load_held(self._run)
        now = trio.current_time()
        self._held = moved_to_clock(kept, now - self._wall_clock_s(), now)
        self._written = [one.certificate for one in kept]
        if tip.number:
            self.adopted(tip, now)

    def adopted(self, tip: Tip, now: float) -> None:
        """Note that the node holds the certificate of `tip` from `now` on, and no other branch."""
        own = [one for one in self._held if self._leads_to(one.certificate, tip)]
        self._held = held_with(own, tip.hash, now)

    def _leads_to(self, certificate: Digest, tip: Tip) -> bool:
        """Whether a certificate is in the ancestry of `tip`; one before the lineage is."""
        known = self._lineage.tip(certificate)
        return known is None or self._lineage.descends(tip, known)

    def has_final(self, own: Iterable[Digest], now: float) -> bool:
        """Whether the node has held one of the certificates `own` for a day."""
        return has_final(self._held, frozenset(own), now)

    async def write(self) -> None:
        """Make the times durable, where more than the last one has changed since the last write.

        A time that a restart loses begins anew, so it need not be written in every round. A disk
        that cannot be written is reported.
        """
        names = [one.certificate for one in self._held]
        if names == self._written or (self._written and names[:-1] == self._written[:-1]):
            return
        by_s = self._wall_clock_s() - trio.current_time()
        held = moved_to_clock(self._held, by_s, self._wall_clock_s())
        try:
            await self._disk.save_held(self._run, held)
        except DiskFull as full:
            self._warn("DISK_FULL", f"the times of adoption were not written: {full}")
        except UserError as unread:
            self._warn(unread.code, f"the times of adoption were not written: {unread.what}")
        else:
            self._written = names
