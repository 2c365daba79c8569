"""The choice between branches of a run.

Two branches have a last common certificate A. The voters of A whose votes a branch holds stand on
that branch. The branch with more standing is preferred, then the one with more certified weight
since A, then the one whose tip has the smaller hash. No node follows a branch on which no voter
stands.

Keys, certificates and claimed samples are free. The voters of A are not: both branches agree on
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from protocol.digest import Digest
from protocol.identity import PeerId


class BranchStep(msgspec.Struct, frozen=True, kw_only=True):
    """One certificate of a branch, as the choice between branches sees it."""

    # The certified weight, in samples.
    weight: int
    # The voters of its parent whose votes for it are listed: by the plan of the certificate after
    # it. For the last certificate, by the plan of a merge or by this node's copy.
    votes: frozenset[PeerId]
    # The L2 norm of its decoded mean, as it entered the outer step.
    travel: float = 0.0


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """One branch since the common ancestor, the oldest step first."""

    tip: Digest
    steps: tuple[BranchStep, ...]

    @property
    def weight(self) -> int:
        """The weight that the branch certified since the common ancestor."""
        return sum(step.weight for step in self.steps)

    @property
    def travel(self) -> float:
        """The sum of the L2 norms of the branch's means since the common ancestor."""
        return sum(step.travel for step in self.steps)

    def first(self, count: int) -> Branch:
        """The branch up to its first `count` certificates."""
        return msgspec.structs.replace(self, steps=self.steps[:count])


def standing(branch: Branch, ancestor_voters: Iterable[PeerId]) -> frozenset[PeerId]:
    """The voters of the common ancestor that stand on a branch."""
    signed: set[PeerId] = set()
    for step in branch.steps:
        signed |= step.votes
    return frozenset(signed.intersection(ancestor_voters))


def rank(branch: Branch, ancestor_voters: Iterable[PeerId]) -> tuple[int, int, bytes]:
    """The order of branches: the larger rank is preferred."""
    inverted = bytes(255 - byte for byte in branch.tip)
    return len(standing(branch, ancestor_voters)), branch.weight, inverted


def preferred(branches: Sequence[Branch], ancestor_voters: frozenset[PeerId]) -> Branch | None:
    """The branch to follow; None where no voter stands on any."""
    held = [branch for branch in branches if standing(branch, ancestor_voters)]
    return max(held, key=lambda branch: rank(branch, ancestor_voters), default=None)
