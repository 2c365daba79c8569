"""What two branches of a lineage hold since they parted, as the rules on branches see it. Pure.

`protocol/membership/standing.py` chooses between the branches, and
`protocol/membership/branch_merge.py` says how one absorbs the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from daemon.swarm.ancestry import Ancestry, LineageEntry
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.tip import Tip, prefer
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.membership.facts import recorded_s
from protocol.membership.standing import Branch, BranchStep, rank
from protocol.messages.envelope import payload_of, signature_is_valid
from protocol.messages.membership import Votes
from protocol.messages.round import TrustPlan, TrustVote
from protocol.run.manifest import Manifest


class Fork(msgspec.Struct, frozen=True, kw_only=True):
    """Two branches and the last certificate that both descend from."""

    ancestor: Tip
    first: Branch
    second: Branch

    @property
    def voters(self) -> frozenset[PeerId]:
        """The voters of the common ancestor."""
        record = self.ancestor.record
        return frozenset(record.voters) if record is not None else frozenset()


class Forks:
    """Finds the forks of one lineage."""

    def __init__(
        self,
        run: Digest,
        manifest: Manifest,
        ancestry: Ancestry,
        tip_of: Callable[[Digest], Tip | None],
    ) -> None:
        """`tip_of` returns the tip with a name, also genesis; None where it is not kept."""
        self._run, self._manifest = run, manifest
        self._ancestry, self._tip_of = ancestry, tip_of

    def of(self, first: Tip, second: Tip, closing: Votes | None = None) -> Fork | None:
        """Return the fork of two tips; None where their common ancestor is not kept.

        Args:
            first: the tip of one branch.
            second: the tip of the other.
            closing: the votes for both tips that a merge's plan lists. None takes those that this
                node's copies of the tips' certificates carry. They differ between nodes, so they
                decide only what this node does.
        """
        one, two = self._ancestry.of(first), self._ancestry.of(second)
        ancestor = self._common(first, second, one, two)
        if ancestor is None:
            return None
        return Fork(
            ancestor=ancestor,
            first=self._branch(first, one, two, closing),
            second=self._branch(second, two, one, closing),
        )

    def prefer(self, first: Tip, second: Tip) -> Tip:
        """Return the preferred one of two tips on different branches."""
        fork = self.of(first, second)
        if fork is None:
            # Their common certificate is no longer kept: nothing tells who stands on them.
            return prefer(first, second)
        one, two = rank(fork.first, fork.voters), rank(fork.second, fork.voters)
        return first if one >= two else second

    def signers(self, path: Iterable[OpenCertificate]) -> list[tuple[Tip, frozenset[PeerId]]]:
        """Return who signed each certificate of a path, with the parent whose voters count.

        Merges are left out: only full ones are certificates.
        """
        entries = [entry for each in path if (entry := self._ancestry.entry(each.hash)) is not None]
        listed = self._listed(entries)
        found = []
        for entry in entries:
            certificate = entry.certificate
            parent = self._tip_of(certificate.outcome.parents[0])
            if len(certificate.outcome.parents) == 1 and parent is not None:
                votes = listed.get(entry.tip.hash, frozenset()) | frozenset(certificate.voters)
                found.append((parent, votes))
        return found

    def _common(
        self,
        first: Tip,
        second: Tip,
        one: Mapping[Digest, LineageEntry],
        two: Mapping[Digest, LineageEntry],
    ) -> Tip | None:
        """Return the newest tip in both ancestries."""
        names = self._reached(first, one) & self._reached(second, two)
        common = [tip for name in names if (tip := self._tip_of(name)) is not None]
        return max(common, key=lambda tip: (tip.number, tip.hash), default=None)

    @staticmethod
    def _reached(tip: Tip, entries: Mapping[Digest, LineageEntry]) -> set[Digest]:
        parents = (
            parent for entry in entries.values() for parent in entry.certificate.outcome.parents
        )
        return {tip.hash, *entries, *parents}

    def _branch(
        self,
        tip: Tip,
        entries: Mapping[Digest, LineageEntry],
        others: Mapping[Digest, LineageEntry],
        closing: Votes | None,
    ) -> Branch:
        """Return the certificates of a branch that the other one does not have."""
        own = [entry for name, entry in entries.items() if name not in others]
        own.sort(key=lambda entry: (entry.tip.number, entry.tip.hash))
        listed = self._listed(own)
        steps = []
        for entry in own:
            certificate = entry.certificate
            votes = listed.get(entry.tip.hash, frozenset())
            if entry.tip.hash == tip.hash:
                votes |= (
                    frozenset(certificate.voters)
                    if closing is None
                    else self._votes_for(certificate, closing)
                )
            steps.append(
                BranchStep(
                    weight=_weight_of(entry),
                    votes=votes,
                    travel=travel_of(certificate, self._manifest),
                )
            )
        return Branch(tip=tip.hash, steps=tuple(steps))

    def _listed(self, entries: Iterable[LineageEntry]) -> dict[Digest, frozenset[PeerId]]:
        """Return who voted for each certificate, as the plans after it list the votes."""
        found: dict[Digest, frozenset[PeerId]] = {}
        for entry in entries:
            plan, parents = entry.certificate.plan.plan, entry.certificate.outcome.parents
            if not isinstance(plan, TrustPlan):
                continue
            for name in parents:
                parent = self._ancestry.entry(name)
                if len(parents) == 1:
                    # `extend` has checked every one of them.
                    votes = frozenset(peer for peer, _ in plan.parent_votes)
                elif parent is not None:
                    votes = self._votes_for(parent.certificate, plan.parent_votes)
                else:
                    continue
                found[name] = found.get(name, frozenset()) | votes
        return found

    def _votes_for(self, certificate: OpenCertificate, votes: Votes) -> frozenset[PeerId]:
        """Return who of `votes` signed this certificate's outcome."""
        payload = payload_of(certificate.outcome)
        return frozenset(
            peer
            for peer, signature in votes
            if signature_is_valid(self._run, payload, peer, signature)
        )


def _weight_of(entry: LineageEntry) -> int:
    """Return the weight that a certificate counts: what the rules on weights left of the claims."""
    record = entry.tip.record
    if record is None or not record.recent:
        return entry.certificate.samples
    return sum(record.recent[-1].weights.values())


def travel_of(certificate: OpenCertificate, manifest: Manifest) -> float:
    """Return the L2 norm of a certificate's decoded mean: the norm per second, times its round."""
    outcome, plan = certificate.outcome, certificate.plan.plan
    if not isinstance(outcome, TrustVote) or not isinstance(plan, TrustPlan):
        return 0.0
    return outcome.step_norm * recorded_s(plan, manifest)
