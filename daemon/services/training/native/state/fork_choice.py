"""Chooses where a node goes next: to a certificate ahead, to a merge with a branch, or nowhere.

A certificate whose state no peer serves stops a node's rounds only for the time of a request. A
slow state stops them for a few rounds (`MISSED_ROUNDS`). The node then goes on with its own lineage
for a while, whatever else is ahead. During that time it downloads states only
beside its rounds, and follows a state that is complete. A merge whose other state did not arrive is
tried again after a while. A merge that failed in its own views is tried again at once, because this
module does not learn of that failure (`protocol/round/views.py`, `pass_view` and `go_alone`).
"""

from __future__ import annotations

from itertools import islice
from typing import Protocol

from daemon.services.training.native.state.downloads import ADVANCING_S
from daemon.swarm.lineage import Lineage
from daemon.swarm.members import Members
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.tip import Tip
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.round.events import CertificateReceived, ForkFound

# A state that no peer served is requested again after this time.
WITHOUT_S = 60.0
# The pause after a merge that failed. Its branch may be dying, and rounds go on meanwhile.
MERGE_RETRY_S = 10.0
# The longest pause, after many merges that failed in a row.
MERGE_RETRY_MOST_S = 160.0
# After a download has kept this node out of rounds, no download does so for this many times as
# long.
FREE_PER_MISSED = 10.0
# The number of certificates kept whose state no peer served.
REMEMBERED = 64


class DownloadProgress(Protocol):
    """What the fork choice needs to know about downloads. `Downloads` implements it."""

    @property
    def underway(self) -> Digest | None:
        """The certificate whose state is being downloaded, while the download advances."""

    @property
    def arrived(self) -> frozenset[Digest]:
        """The certificates whose states have arrived, complete."""


class ForkChoice:
    """The fork choice of one node. Times are seconds of one monotonic clock."""

    def __init__(
        self,
        lineage: Lineage,
        members: Members,
        downloads: DownloadProgress,
    ) -> None:
        self._lineage = lineage
        self._members = members
        self._downloads = downloads
        # By certificate whose state no peer served: when to ask again, and the peers asked.
        self._without: dict[Digest, tuple[float, frozenset[PeerId]]] = {}
        # Until this time no certificate stops this node's rounds before its state is complete.
        self._wary_until = 0.0
        self._merge_after = 0.0
        self._merges_failed = 0

    def leads(
        self, tip: Tip, now: float, computed: Digest | None = None
    ) -> CertificateReceived | ForkFound | None:
        """Return where a node at `tip` goes next. A certificate ahead comes before any merge.

        `computed` names the certificate of the state that this node computed: adopting it needs no
        download.
        """
        ours = self._lineage.entry(computed) if computed is not None else None
        if ours is not None and self._lineage.descends(ours.tip, tip):
            return CertificateReceived(certificate=ours.certificate)
        wanted = self._wanted(tip, now)
        if wanted is not None:
            return (
                CertificateReceived(certificate=wanted)
                if now >= self._wary_until or wanted.hash in self._downloads.arrived
                else None
            )
        if now >= self._merge_after:
            for other in self._lineage.other_branches(
                tip, lambda head: bool(self._members.live_at(head.hash))
            ):
                return ForkFound(other=other)
        return None

    def seeks(self, tip: Tip, now: float) -> OpenCertificate | None:
        """Return the certificate whose state to download beside this node's own rounds."""
        return self._wanted(tip, now) if now < self._wary_until else None

    def _wanted(self, tip: Tip, now: float) -> OpenCertificate | None:
        """Return the certificate to go to, or None.

        It is the preferred head, or a certificate on the way to that head whose state has arrived
        or is arriving. Heads whose state no peer serves are skipped.
        """
        near = [
            name
            for name in (*sorted(self._downloads.arrived), self._downloads.underway)
            if name is not None
        ]
        for head in self._lineage.descendants(tip):
            on_the_way = [name for name in near if self._is_between(name, tip, head)]
            for name in (*on_the_way, head.hash):
                made = self._lineage.entry(name)
                if made is not None and (
                    name in self._downloads.arrived or not self._is_without(name, now)
                ):
                    return made.certificate
        return None

    def _is_between(self, name: Digest, tip: Tip, head: Tip) -> bool:
        known = self._lineage.tip(name)
        return (
            known is not None
            and known.hash != tip.hash
            and self._lineage.descends(known, tip)
            and self._lineage.descends(head, known)
        )

    def _is_without(self, name: Digest, now: float) -> bool:
        """Return whether no peer served this state and no possible source has come since."""
        until, asked = self._without.get(name, (0.0, frozenset()))
        return now < until and self._members.live_at(name) <= asked

    def state_unavailable(self, name: Digest, now: float, missed_s: float = 0.0) -> None:
        """Go on without a state for a while: no peer served it, it stalled, or it is slow.

        `missed_s` is the time for which the download kept this node out of rounds.
        """
        free_s = max(WITHOUT_S, FREE_PER_MISSED * missed_s)
        self._wary_until = max(self._wary_until, now + free_s)
        if name == self._downloads.underway and missed_s > ADVANCING_S:
            # The download advances, so the state counts as arriving.
            return
        self._without.pop(name, None)
        self._without[name] = (now + WITHOUT_S, self._members.live_at(name))
        for old in list(islice(self._without, max(0, len(self._without) - REMEMBERED))):
            del self._without[old]

    def merge_failed(self, now: float) -> None:
        """Wait before the next merge, longer after each failure."""
        self._merge_after = now + min(MERGE_RETRY_S * 2.0**self._merges_failed, MERGE_RETRY_MOST_S)
        self._merges_failed += 1

    def moved(self, *, downloaded: bool = False) -> None:
        """React to the node's move to another certificate, by a downloaded or a computed state."""
        self._merges_failed = 0
        if downloaded:
            self._wary_until = 0.0
