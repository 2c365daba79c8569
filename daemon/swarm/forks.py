"""What two branches of a lineage hold since they parted, as the rules on branches see it. Pure.

`protocol/membership/standing.py` chooses between the branches, and
`protocol/membership/branch_merge.py` says how one absorbs the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from daemon.swarm.ancestry import Ancestry, LineageEntry
from protocol.averaging.replay import is_merge
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.next_tip import MergeSides
from protocol.certificates.tip import Tip, prefer
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.membership.branch_merge import MergeShare, merge_share
from protocol.membership.certificate_check import is_full_certificate, quorum_in
from protocol.membership.facts import recorded_s
from protocol.membership.standing import Branch, BranchStep, rank, standing
from protocol.messages.envelope import payload_of, signature_is_valid
from protocol.messages.membership import Votes
from protocol.messages.round import TrustPlan, TrustVote
from protocol.rules.registry import rules_of
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


class Signers(msgspec.Struct, frozen=True, kw_only=True):
    """Who signed one certificate: how many of its parent's voters, and how many there are."""

    voters: int
    signers: int


class Forks:
    """Finds the forks of one lineage."""

    def __init__(
        self,
        run: Digest,
        manifest: Manifest,
        ancestry: Ancestry,
        tip_of: Callable[[Digest], Tip | None],
        root: Tip,
    ) -> None:
        """`tip_of` returns the tip with a name, also `root`; None where none is kept."""
        self._run, self._manifest = run, manifest
        self._ancestry, self._tip_of, self._root = ancestry, tip_of, root

    def of(self, first: Tip, second: Tip) -> Fork | None:
        """Return the fork of two tips; None where their common ancestor is not kept.

        Votes are those that later plans of the branch list: two nodes with the same certificates
        find the same fork, whatever copies they hold. The ancestor is on the main line of both:
        after a merge, the absorbed branch may go on from its own tip, where only its own voters
        vote. They must not lead the others away. No plan lists the votes for the only
        certificate of a branch. Such a certificate counts with the votes of this node's copy, and
        with all voters where they are a quorum: copies of it carry different majorities. Beside a
        longer branch with a quorum it counts as many as stand there, and no more: whoever voted
        for both has gone on, and would otherwise leave a long branch for a sibling of its start.
        """
        ours = set(self._ancestry.main_line(first))
        common = (name for name in self._ancestry.main_line(second) if name in ours)
        name = next(common, None)
        ancestor = self._tip_of(name) if name is not None else None
        if ancestor is None:
            return None
        one, two = self._ancestry.of(first), self._ancestry.of(second)
        return Fork(
            ancestor=ancestor,
            first=self._branch(first, one, two, ancestor),
            second=self._branch(second, two, one, ancestor),
        )

    def prefer(self, first: Tip, second: Tip) -> Tip:
        """Return the preferred one of two tips on different branches."""
        fork = self.of(first, second)
        if fork is None:
            # Their common certificate is no longer kept: nothing tells who stands on them.
            return prefer(first, second)
        one, two = rank(fork.first, fork.voters), rank(fork.second, fork.voters)
        return first if one >= two else second

    def sides(self, first: Tip, second: Tip) -> MergeSides:
        """Which of two branches absorbs the other in a merge of rules 4."""
        fork = self.of(first, second)
        if fork is None:
            return MergeSides(ancestor=self._root, preferred=prefer(first, second))
        ours, theirs = (standing(branch, fork.voters) for branch in (fork.first, fork.second))
        preferred = self.prefer(first, second)
        stood = min(ours, theirs, key=len) if len(ours) != len(theirs) else frozenset()
        return MergeSides(ancestor=fork.ancestor, preferred=preferred, stood=tuple(sorted(stood)))

    def has_absorbed(self, other: Tip, tip: Tip) -> bool:
        """Whether the branch of `other` merged a part of the branch of `tip`."""
        main = set(self._ancestry.main_line(other))
        own = {name for name in self._ancestry.main_line(tip) if name not in main}
        return not own.isdisjoint(self._ancestry.of(other))

    def merge_share(self, preferred: Tip, other: Tip) -> MergeShare:
        """How far the merge of `other` into `preferred` moves the state, under rules 4."""
        fork = self.of(preferred, other)
        if fork is None:
            return MergeShare(sigma=0.0, limit=0.0, compared=0)
        outer = rules_of(self._manifest).outer_at(self._manifest, preferred.samples)
        return merge_share(fork.first, fork.second, fork.voters, outer)

    def signers(self, path: Iterable[OpenCertificate]) -> list[Signers]:
        """Return who signed each certificate of a path.

        Merges are left out: only full ones are certificates.
        """
        entries = [entry for each in path if (entry := self._ancestry.entry(each.hash)) is not None]
        listed = self._listed(entries)
        found = []
        for entry in entries:
            certificate = entry.certificate
            parent = self._tip_of(certificate.outcome.parents[0])
            if is_merge(certificate) or parent is None or parent.record is None:
                continue
            quorum = quorum_in(certificate, parent.record, self._manifest)
            votes = listed.get(entry.tip.hash, frozenset()) | frozenset(certificate.voters)
            found.append(Signers(voters=len(quorum.voters), signers=len(quorum.voters & votes)))
        return found

    def _branch(
        self,
        tip: Tip,
        entries: Mapping[Digest, LineageEntry],
        others: Mapping[Digest, LineageEntry],
        ancestor: Tip,
    ) -> Branch:
        """Return the certificates of a branch that the other one does not have."""
        own = [entry for name, entry in entries.items() if name not in others]
        own.sort(key=lambda entry: (entry.tip.number, entry.tip.hash))
        listed = self._listed(own)
        if len(own) == 1:
            beside = self._listed(entry for name, entry in others.items() if name not in entries)
            votes = self._sole_votes(
                own[0].certificate, ancestor, frozenset().union(*beside.values())
            )
            listed = {own[0].tip.hash: votes}
        steps = tuple(
            BranchStep(
                weight=_weight_of(entry),
                votes=listed.get(entry.tip.hash, frozenset()),
                travel=travel_of(entry.certificate, self._manifest),
            )
            for entry in own
        )
        return Branch(tip=tip.hash, steps=steps)

    def _sole_votes(
        self, certificate: OpenCertificate, ancestor: Tip, beside: frozenset[PeerId]
    ) -> frozenset[PeerId]:
        """Return who stands on a branch of one certificate, where `beside` stand on the other."""
        votes, record = frozenset(certificate.voters), ancestor.record
        if record is None:
            return votes
        if is_merge(certificate) or is_full_certificate(certificate, record, self._manifest):
            beside &= {*record.voters}
            quorum = 2 * len(beside) > len(record.voters)
            return beside if quorum else frozenset(record.voters)
        return votes

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
