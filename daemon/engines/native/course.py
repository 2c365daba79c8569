"""Where the lineage leads a node: to a certificate ahead of it, to a merge with a branch beside it, or nowhere.

What somebody alive holds can be had; what nobody gave is done without for a while, and a merge that failed is tried again after one.
"""

from __future__ import annotations

from daemon.swarm.lineage import Lineage
from daemon.swarm.members import Members
from protocol.certificate import Tip
from protocol.digest import Digest
from protocol.round.phases import CertificateGot, ForkGot

WITHOUT_S = 60.0  # after a download that nobody could give: then it is asked for again
MERGE_RETRY_S = 10.0  # after a merge that failed: its branch may be dying, and rounds go on meanwhile


class Course:
    """One node's. Times are seconds of one monotonic clock."""

    def __init__(self, lineage: Lineage, members: Members) -> None:
        self._lineage, self._members = lineage, members
        self._without: dict[Digest, float] = {}  # the certificate whose state nobody gave, and until when to do without
        self._merge_after: dict[Digest, float] = {}  # the branch whose merge failed, and when to try again

    def leads(self, tip: Tip, now: float) -> CertificateGot | ForkGot | None:
        """What happens next to a node that stands at `tip`. The way ahead goes before any merge."""
        ahead = self._lineage.ahead(tip)
        if ahead is not None and now < self._without.get(ahead.hash, 0.0) and not self._members.live_at(ahead.hash):
            ahead = None  # nobody could give its state, and nobody has come since who might
        made = self._lineage.step(ahead.hash) if ahead is not None else None
        if made is not None:
            return CertificateGot(certificate=made.certificate)
        for other in self._lineage.beside(tip, lambda head: bool(self._members.live_at(head.hash))):
            if now >= self._merge_after.get(other.hash, 0.0):
                return ForkGot(other=other)
        return None

    def nobody_gave(self, name: Digest, now: float) -> None:
        """The state of this certificate could not be had."""
        self._without = {name: now + WITHOUT_S}

    def merge_failed(self, name: Digest, now: float) -> None:
        """The branch with this tip could not be merged with."""
        self._merge_after = {name: now + MERGE_RETRY_S}
