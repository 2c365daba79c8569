"""What a node of rules 4 does about certificates and branches of others.

A node follows a degraded certificate only when it is patient. It follows a branch on which more
voters stand than on its own, and merges a branch on which fewer or as many stand. It waits a while
for the other side's merge before it leaves its branch, because a merge keeps the work of both.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from daemon.services.training.native.state.held_store import HeldStore
from daemon.swarm.forks import Fork
from daemon.swarm.lineage import Lineage
from protocol.averaging.replay import is_merge
from protocol.certificates.tip import Tip
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.membership.branch_merge import exhausted_voters
from protocol.membership.patience import Patience
from protocol.membership.standing import rank, standing

# A branch of less standing waits so long for the other one's merge: a download of the state, and a
# few tries of the merge's round.
MERGE_WAIT_S = 120.0
# The branches whose first sight is remembered.
SEEN_KEPT = 64


class Course(Enum):
    """What to do about another branch."""

    IGNORE = "ignore"
    # Merge it at once: as many voters stand on it, so both sides meet.
    MEET = "meet"
    # Merge it once its state has arrived: fewer voters stand on it.
    ABSORB = "absorb"
    # Leave the own branch for it.
    FOLLOW = "follow"


class BranchPolicy:
    """The rules on branches of one node. Times are seconds of one monotonic clock."""

    def __init__(self, lineage: Lineage, held: HeldStore, warn: Callable[[str, str], None]) -> None:
        """`warn` reports (code, message) what the node's owner should know."""
        self._lineage, self._held, self._warn = lineage, held, warn
        # By tip of another branch: when this node first saw that it is preferred.
        self._seen: dict[Digest, float] = {}
        self._warned: set[Digest] = set()
        # The certificate whose model this node found better than its own when it returned.
        self._trusted: Digest | None = None

    def trust(self, tip: Digest) -> None:
        """Accept the certificates that lead to `tip`, whoever signed them."""
        self._trusted = tip

    def trusts(self, tip: Tip) -> bool:
        """Whether `tip` is on the way to the certificate that this node trusts."""
        trusted = self._lineage.tip(self._trusted) if self._trusted is not None else None
        return trusted is not None and self._lineage.descends(trusted, tip)

    def adopted(self, tip: Tip, now: float) -> None:
        """Note that the node holds the certificate of `tip` from now on."""
        self._held.adopted(tip, now)

    def accepts(self, tip: Tip, target: Tip, patience: Patience | None, now: float) -> bool:
        """Return whether a node at `tip` may follow the certificates that lead to `target`.

        `patience` is None below rules 4, where every certificate may be followed.
        """
        if patience is None or self._lineage.follows(target) or self.trusts(target):
            return True
        path = self._lineage.path(tip, target)
        merges = [made for one in path if is_merge(one) and (made := self._lineage.tip(one.hash))]
        # A merge is full, and only the branch with more standing makes one: it speaks for what it
        # absorbed.
        own = [
            one
            for one in path
            if (made := self._lineage.tip(one.hash)) is not None
            and not any(self._lineage.descends(merge, made) for merge in merges)
        ]
        for each in self._lineage.forks.signers(own):
            here = Patience(since=patience.since, grace_s=patience.grace_s, voters=each.voters)
            if not here.is_patient(each.signers, now):
                return False
        return True

    def course(self, tip: Tip, other: Tip, patience: Patience, now: float) -> Course:
        """Return what a node at `tip` does about the branch of `other`."""
        if self._lineage.followed:
            # The node's owner decides, also against the rules.
            if self._lineage.follows(other) and not self._lineage.follows(tip):
                return Course.FOLLOW
            if self._lineage.follows(tip) and not self._lineage.follows(other):
                return Course.IGNORE
        fork = self._lineage.forks.of(tip, other)
        if fork is None:
            return Course.IGNORE
        ours = standing(fork.first, fork.voters)
        theirs = standing(fork.second, fork.voters)
        if not theirs:
            return Course.IGNORE
        if len(ours) == len(theirs):
            return Course.MEET
        if rank(fork.first, fork.voters) > rank(fork.second, fork.voters):
            return Course.ABSORB if not self._exhausted(tip, fork) else Course.IGNORE
        if self._is_final(tip, fork, now):
            self._warn_final(fork, ours, theirs)
            return Course.IGNORE
        # Once the other branch merged a part of this one, only the rounds since then are lost.
        waited = now >= self._first_seen(fork, now) + MERGE_WAIT_S
        if not waited and not self._lineage.forks.has_absorbed(other, tip):
            return Course.IGNORE
        return Course.FOLLOW if self.accepts(tip, other, patience, now) else Course.IGNORE

    def _exhausted(self, tip: Tip, fork: Fork) -> frozenset[PeerId]:
        recent = [frozenset(each.stood) for each in tip.record.merged] if tip.record else []
        return exhausted_voters(fork.second, fork.voters, recent)

    def _first_seen(self, fork: Fork, now: float) -> float:
        """Return when this node first saw that the fork's other branch is preferred."""
        name = fork.ancestor.hash
        seen = self._seen.setdefault(name, now)
        while len(self._seen) > SEEN_KEPT:
            del self._seen[next(iter(self._seen))]
        return seen

    def _is_final(self, tip: Tip, fork: Fork, now: float) -> bool:
        """Return whether this node has held a certificate after the common ancestor for a day."""
        own = self._lineage.path(fork.ancestor, tip)
        return self._held.has_final((one.hash for one in own), now)

    def _warn_final(self, fork: Fork, ours: frozenset[PeerId], theirs: frozenset[PeerId]) -> None:
        name = fork.ancestor.hash
        if name in self._warned:
            return
        self._warned.add(name)
        self._warn(
            "FINAL",
            f"Another branch after certificate {fork.ancestor.number} has {len(theirs)} of its"
            f" voters, this node's branch has {len(ours)}. This node has held its branch for a day"
            " and stays. To follow the other one:"
            f" hypergpud run follow {fork.second.tip.hex()[:12]}",
        )
