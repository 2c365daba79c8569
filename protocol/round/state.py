"""The state of one node in one round."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from protocol.certificates.certificate import OpenCertificate, Tip
from protocol.certificates.leader_order import leader_of
from protocol.certificates.merge import merge_parents, merge_round
from protocol.contribution.offer import NOTHING, Offer
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.messages.base import Signed
from protocol.messages.offer import Ready
from protocol.messages.round import Inclusion, Vote
from protocol.planning.group_size_history import GroupSizeHistory
from protocol.planning.plan import OpenPlan
from protocol.round.phase import Phase
from protocol.rules.registry import rules_of
from protocol.run.manifest import Manifest


class RunContext(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change during a run."""

    run: Digest
    me: PeerId
    manifest: Manifest
    chunks: int  # of the run's model


class LeaderState(msgspec.Struct, frozen=True, kw_only=True):
    """What the leader of the current view gathers.

    `held` maps a member to the contributors it holds whole.
    """

    hold_reports: Mapping[PeerId, frozenset[int]] = {}
    # Taken for dead because they said nothing in time.
    silent: frozenset[PeerId] = frozenset()
    # So slow that most had their part when they had not: left out of this plan, alive as they are.
    slow: frozenset[PeerId] = frozenset()


class PendingMerge(msgspec.Struct, frozen=True, kw_only=True):
    """A merge under way: the other branch's tip, and the digest of the averaged state in the spare
    buffer.
    """

    other: Tip
    state: Digest
    first_view: int = 0  # where this attempt at it began


class VotedOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a certificate is assembled from, besides the votes."""

    vote: Vote
    plan: OpenPlan
    plan_signed: Signed
    inclusion_signed: Signed


class RoundState(msgspec.Struct, frozen=True, kw_only=True):
    """One node in one round (parent = `tip`)."""

    context: RunContext
    tip: Tip
    phase: Phase
    view: int = 0
    # Monotonic seconds; infinity when only an event can end the phase.
    deadline: float
    entered: float = 0.0  # monotonic seconds: when this phase began
    # Other nodes that are alive and at the same tip.
    live: frozenset[PeerId] = frozenset()
    # In quarantine here: not in a plan of ours while enough others are ready.
    avoided: frozenset[PeerId] = frozenset()
    lost: frozenset[PeerId] = frozenset()  # lost since this round began
    # Leaders just passed over: a plan does not wait for them.
    passed_over: frozenset[PeerId] = frozenset()
    offer: Ready | None = None
    # The encoded work that `offer` announces.
    contribution: Offer = NOTHING
    offered_to: frozenset[PeerId] = frozenset()  # leaders that have our Ready of this view
    # The latest of each peer, for this view or a later one.
    readies: Mapping[PeerId, tuple[Signed, Ready]] = {}
    plan: OpenPlan | None = None
    plan_signed: Signed | None = None
    # The last plan that each peer said it takes no part in. Kept before the plan itself is here.
    withdrawn: Mapping[PeerId, Digest] = {}
    declined: tuple[Digest, ...] = ()  # the last plans that this node said so of
    inclusion: Inclusion | None = None
    inclusion_signed: Signed | None = None
    # Contributors whose part of our slices we hold whole.
    held_contributors: frozenset[int] = frozenset()
    # Whether half of the scatter's time is over.
    overdue: bool = False
    # Whether the leader has a Held from us: from then on it hears of every change.
    hold_reported: bool = False
    # Slices whose result under the current cut is here.
    results: frozenset[int] = frozenset()
    # The last one this node cast after this tip.
    vote: Vote | None = None
    # The outcome whose state is in the spare buffer.
    spare: Vote | None = None
    votes: Mapping[Digest, Mapping[PeerId, bytes]] = {}  # by the digest of the vote's payload
    # The last vote of each peer: it has one in a view.
    last_votes: Mapping[PeerId, Vote] = {}
    # The last one this node computed, by the same digest: it can assemble its certificate.
    outcomes: Mapping[Digest, VotedOutcome] = {}
    # Whether members were asked for a certificate in this vote.
    inquired: bool = False
    leader_state: LeaderState = LeaderState()
    merge: PendingMerge | None = None
    # Rounds left for a merge, and merges left, by parent: the view in which each is taken up again.
    view_records: Mapping[Digest, int] = {}
    target: OpenCertificate | None = None  # what ADOPT and FETCH move to
    # In MERGE: the other branch, whose state is coming.
    merge_target: Tip | None = None

    @property
    def parents(self) -> tuple[Digest, ...]:
        """Of the certificate that this round would make."""
        return (
            merge_parents(self.tip.hash, self.merge.other.hash) if self.merge else (self.tip.hash,)
        )

    @property
    def parent(self) -> Digest:
        """What this round goes by."""
        return merge_round(self.parents)

    @property
    def number(self) -> int:
        """Of the certificate that this round would make."""
        return max(self.tip.number, self.merge.other.number if self.merge else 0) + 1

    @property
    def group_history(self) -> GroupSizeHistory | None:
        """What the last plan left for this round's; two branches that meet begin anew."""
        return None if self.merge else self.tip.layout

    @property
    def leader_order(self) -> tuple[PeerId, ...]:
        """The leaders after the tip (or both tips), in turn: the members named there, and after
        them whoever else is known.
        """
        members = {*self.tip.members, *(self.merge.other.members if self.merge else ())}
        newcomers = (self.live | {self.context.me}).difference(members)
        leader_order = rules_of(self.context.manifest).leader_order
        return leader_order(self.parent, members) + leader_order(self.parent, newcomers)

    @property
    def leader(self) -> PeerId:
        return leader_of(self.leader_order, self.view)

    @property
    def decided(self) -> bool:
        """Whether this round's certificate is here already and only our own computation of it is
        not.
        """
        return self.target is not None

    @property
    def in_later_view(self) -> frozenset[PeerId]:
        """The peers that are known to be in a later view of this round: they never come back to
        this one.
        """
        return frozenset(
            peer for peer, (_, ready) in self.readies.items() if ready.view > self.view
        )

    @property
    def absent(self) -> frozenset[PeerId]:
        """The peers that do nothing for the current plan any more: lost, in a later view, or
        withdrawn from it.

        Nothing waits for them.
        """
        plan = self.plan
        elsewhere = {
            peer
            for peer, name in self.withdrawn.items()
            if plan is not None and name == plan.digest
        }
        return self.lost | self.in_later_view | elsewhere

    @property
    def majority_lost(self) -> bool:
        """Whether so many members are absent that no majority can vote."""
        plan, absent = self.plan, self.absent
        return plan is not None and sum(peer not in absent for peer in plan.members) < plan.majority

    @property
    def leads(self) -> bool:
        """Whether the current plan (before there is one, the current view) is this node's to lead."""
        return (self.plan.leader if self.plan else self.leader) == self.context.me
