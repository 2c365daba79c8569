"""Chooses where a node goes next: to a certificate ahead, to a merge with a branch, or nowhere.

A certificate whose state no peer serves stops a node's rounds only for the time of a request. A
slow state stops them for a few rounds (`MISSED_ROUNDS`). The node then goes on with its own lineage
for a while, whatever else is ahead. During that time it downloads states only
beside its rounds, and follows a state that is complete. A merge whose other state did not arrive is
tried again after a while. A merge that failed in its own views is tried again at once, because this
module does not learn of that failure (`protocol/round/views.py`, `pass_view` and `go_alone`).
"""

from __future__ import annotations

import math
from itertools import islice
from typing import Protocol

from msgspec.structs import replace

from daemon.services.training.native.state.branch_policy import BranchPolicy, Course
from daemon.services.training.native.state.downloads import ADVANCING_S
from daemon.swarm.lineage import Lineage
from daemon.swarm.members import Members
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.tip import Tip
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.membership.patience import Patience
from protocol.round.events import CertificateReceived, ForkFound, RecoveryFound

# A state that no peer served is requested again after this time.
WITHOUT_S = 60.0
# The pause after a merge that failed. Its branch may be dying, and rounds go on meanwhile.
MERGE_RETRY_S = 10.0
# The pause after a search for the state of the owner's recovery.
RECOVERY_RETRY_S = 10.0
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
        policy: BranchPolicy | None = None,
    ) -> None:
        """`policy` has the rules on branches of a run of rules 4; None before."""
        self._lineage = lineage
        self._policy = policy
        self._members = members
        self._downloads = downloads
        # By certificate whose state no peer served: when to ask again, and the peers asked.
        self._without: dict[Digest, tuple[float, frozenset[PeerId]]] = {}
        # Until this time no certificate stops this node's rounds before its state is complete.
        self._wary_until = 0.0
        self._merge_after = 0.0
        self._merges_failed = 0
        self._recover_after = 0.0

    def leads(
        self,
        tip: Tip,
        now: float,
        computed: Digest | None = None,
        patience: Patience | None = None,
    ) -> CertificateReceived | ForkFound | RecoveryFound | None:
        """Return where a node at `tip` goes next. A certificate ahead comes before any merge.

        The owner's recovery comes before both.

        `computed` names the certificate of the state that this node computed: adopting it needs no
        download. `patience` is the node's, under rules 4.
        """
        recovered = self._lineage.recoveries.newest
        if recovered is not None and not self._lineage.descends(tip, recovered):
            return self._recovery(recovered, now)
        ours = self._lineage.entry(computed) if computed is not None else None
        if (
            ours is not None
            and self._lineage.descends(ours.tip, tip)
            and self._accepts(tip, ours.tip, patience, now)
        ):
            return CertificateReceived(certificate=ours.certificate)
        wanted = self._wanted(tip, now, patience)
        if wanted is not None:
            return (
                CertificateReceived(certificate=wanted)
                if now >= self._wary_until or wanted.hash in self._downloads.arrived
                else None
            )
        if now >= self._merge_after:
            for other in self._live_branches(tip):
                course = self._course(tip, other, patience, now)
                if course is Course.MEET:
                    return ForkFound(other=other)
                if other.hash in self._downloads.arrived:
                    if course is Course.ABSORB:
                        return ForkFound(other=other)
                    entry = self._lineage.entry(other.hash)
                    if course is Course.FOLLOW and entry is not None:
                        return CertificateReceived(certificate=entry.certificate)
        return None

    def _recovery(self, recovered: Tip, now: float) -> CertificateReceived | RecoveryFound | None:
        """Return how to get to the owner's recovery: by a later certificate, or by its own state.

        Where the state is missing, nothing leads anywhere for a while.
        """
        for head in self._lineage.descendants(recovered):
            entry = self._lineage.entry(head.hash)
            if entry is not None and not self._is_without(head.hash, now):
                return CertificateReceived(certificate=entry.certificate)
        return RecoveryFound(tip=recovered) if now >= self._recover_after else None

    def recovery_failed(self, now: float) -> None:
        """Wait before the next try to get the state of the owner's recovery."""
        self._recover_after = now + RECOVERY_RETRY_S

    def seeks(
        self, tip: Tip, now: float, patience: Patience | None = None
    ) -> OpenCertificate | None:
        """Return the certificate whose state to download beside this node's own rounds."""
        wanted = self._wanted(tip, now, patience)
        if wanted is not None:
            return wanted if now < self._wary_until else None
        if now < self._merge_after or patience is None:
            return None
        for other in self._live_branches(tip):
            course, entry = self._course(tip, other, patience, now), self._lineage.entry(other.hash)
            if course in (Course.ABSORB, Course.FOLLOW) and entry is not None:
                near = other.hash in self._downloads.arrived
                return None if near or self._is_without(other.hash, now) else entry.certificate
        return None

    def impatient_for(self, tip: Tip, now: float, patience: Patience) -> OpenCertificate | None:
        """Return the certificate that a node at `tip` would go to if it were patient.

        None where it may go there now, or where nothing is ahead.
        """
        patient = replace(patience, since=-math.inf)
        heads = [
            *self._lineage.descendants(tip),
            *(
                other
                for other in self._live_branches(tip)
                if self._course(tip, other, patient, now) is Course.FOLLOW
            ),
        ]
        for head in heads:
            entry = self._lineage.entry(head.hash)
            if entry is not None and not self._is_without(head.hash, now):
                return None if self._accepts(tip, head, patience, now) else entry.certificate
        return None

    def trust(self, tip: Tip) -> None:
        """Follow the certificates that lead to `tip` without waiting for the grace."""
        if self._policy is not None:
            self._policy.trust(tip.hash)

    def trusts(self, tip: Tip) -> bool:
        """Whether this node follows `tip` by the loss of its model."""
        return self._policy is not None and self._policy.trusts(tip)

    def _live_branches(self, tip: Tip) -> list[Tip]:
        return self._lineage.other_branches(
            tip, lambda head: bool(self._members.live_at(head.hash))
        )

    def _accepts(self, tip: Tip, target: Tip, patience: Patience | None, now: float) -> bool:
        return self._policy is None or self._policy.accepts(tip, target, patience, now)

    def _course(self, tip: Tip, other: Tip, patience: Patience | None, now: float) -> Course:
        """Return what to do about another branch; before rules 4, every branch is merged."""
        if self._policy is None or patience is None:
            return Course.MEET
        return self._policy.course(tip, other, patience, now)

    def _wanted(self, tip: Tip, now: float, patience: Patience | None) -> OpenCertificate | None:
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
                if (
                    made is not None
                    and (name in self._downloads.arrived or not self._is_without(name, now))
                    and self._accepts(tip, made.tip, patience, now)
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

    def state_unavailable(
        self, name: Digest, now: float, missed_s: float = 0.0, *, ahead: bool = True
    ) -> None:
        """Go on without a state for a while: no peer served it, it stalled, or it is slow.

        `missed_s` is the time for which the download kept this node out of rounds. `ahead` is False
        for the state of another branch, for which this node does not wait.
        """
        free_s = max(WITHOUT_S, FREE_PER_MISSED * missed_s)
        if ahead:
            self._wary_until = max(self._wary_until, now + free_s)
        if name == self._downloads.underway and missed_s > ADVANCING_S:
            # The download advances, so the state counts as arriving.
            return
        self._without.pop(name, None)
        self._without[name] = (now + WITHOUT_S, self._members.live_at(name))
        for old in list(islice(self._without, max(0, len(self._without) - REMEMBERED))):
            del self._without[old]

    def still_away(self, awaited: Tip, tip: Tip, now: float) -> None:
        """Look past a state that a node at `tip` held before a restart, if others go on without it.

        While nobody does, the node waits: a node that comes closer to the state, by some of the
        results, fetches on at once. Once live members are at another certificate after `tip`, the
        state holds this node no longer. Should its holders return, their branch is met like any
        other.
        """
        for head in self._lineage.descendants(tip):
            if not self._lineage.descends(head, awaited) and self._members.live_at(head.hash):
                self.state_unavailable(awaited.hash, now, ahead=False)
                return

    def merge_failed(self, now: float) -> None:
        """Wait before the next merge, longer after each failure."""
        self._merge_after = now + min(MERGE_RETRY_S * 2.0**self._merges_failed, MERGE_RETRY_MOST_S)
        self._merges_failed += 1

    def moved(self, *, downloaded: bool = False, tip: Tip | None = None, now: float = 0.0) -> None:
        """React to the node's move to another certificate, by a downloaded or a computed state."""
        self._merges_failed = 0
        if self._policy is not None and tip is not None:
            self._policy.adopted(tip, now)
        if downloaded:
            self._wary_until = 0.0
