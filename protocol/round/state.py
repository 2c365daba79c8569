"""The state of one node in one round."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.leader_order import leader_of, voter_order
from protocol.certificates.merge import merge_parents, merge_round
from protocol.certificates.tip import Tip, prefer
from protocol.contribution.offer import NOTHING, Offer
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.membership.quorum import quorum_of
from protocol.membership.record import MembershipRecord
from protocol.messages.base import Signed
from protocol.messages.membership import revoked_in
from protocol.messages.offer import Ready
from protocol.messages.round import Inclusion, Vote
from protocol.planning.group_size_history import GroupSizeHistory
from protocol.planning.plan import OpenPlan
from protocol.planning.round_length import round_length
from protocol.round.phase import Phase
from protocol.rules.registry import rules_of
from protocol.run.manifest import Manifest


class ReturningState(msgspec.Struct, frozen=True, kw_only=True):
    """A state that this node held before a restart, and whose holders may still come back."""

    # The last certificate on this node's disk at its start.
    certificate: Digest
    # Monotonic seconds: how long this node waits for the state.
    until: float

    def awaited(self, certificate: Digest, now: float) -> bool:
        """Whether `certificate` names the state, and this node still waits for it."""
        return certificate == self.certificate and now < self.until


class RunContext(msgspec.Struct, frozen=True, kw_only=True):
    """What stays the same for one node during a run."""

    run: Digest
    me: PeerId
    manifest: Manifest
    # The chunks of the run's model.
    chunks: int
    # None where the disk had the state of its last certificate.
    returning: ReturningState | None = None


class LeaderState(msgspec.Struct, frozen=True, kw_only=True):
    """What the leader of the current view knows about its members."""

    # The contributors that each member reported to hold whole.
    hold_reports: Mapping[PeerId, frozenset[int]] = {}
    # Members considered dead, because they reported nothing in time.
    silent: frozenset[PeerId] = frozenset()
    # Members without their part when most had theirs: alive, but left out of this plan.
    slow: frozenset[PeerId] = frozenset()


class PendingMerge(msgspec.Struct, frozen=True, kw_only=True):
    """A merge whose averaged state is in the spare buffer."""

    # The tip of the other branch.
    other: Tip
    # The digest of the averaged state.
    state: Digest
    # The view in which this attempt began.
    first_view: int = 0
    # The tip that absorbs the other one, under rules 4.
    preferred: Tip | None = None


class VotedOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a certificate besides its votes."""

    vote: Vote
    plan: OpenPlan
    plan_signed: Signed
    inclusion_signed: Signed


class Notices(msgspec.Struct, frozen=True, kw_only=True):
    """What this node can list in a plan of rules 4."""

    # The votes for the tip that this node holds, in the order of the voters.
    parent_votes: tuple[tuple[PeerId, bytes], ...] = ()
    # The latest leave of each voter, by sender.
    leaves: Mapping[PeerId, Signed] = {}
    # The owner's revocations that the tip's record does not have.
    revocations: tuple[Signed, ...] = ()


class RoundState(msgspec.Struct, frozen=True, kw_only=True):
    """One node in one round, whose parent is `tip`."""

    context: RunContext
    tip: Tip
    phase: Phase
    view: int = 0
    # Monotonic seconds; infinity when only an event can end the phase.
    deadline: float
    # Monotonic seconds: when this phase began.
    entered: float = 0.0
    # Monotonic seconds: when this node began the round after its tip.
    began: float = 0.0
    # Monotonic seconds: when this node started, or last adopted a full certificate. How long it
    # waits for a quorum counts from here (`protocol/round/quorum.py`).
    full_since: float = 0.0

    # Other nodes that are alive and at the same tip.
    live: frozenset[PeerId] = frozenset()
    # Nodes in quarantine here: this node's plan leaves them out while enough others are ready.
    avoided: frozenset[PeerId] = frozenset()
    # Live peers whose offers cannot arrive; see `LivePeersChanged`.
    unreachable: frozenset[PeerId] = frozenset()
    # Nodes lost since this round began.
    lost: frozenset[PeerId] = frozenset()
    # Leaders that were just passed over: a plan does not wait for them.
    passed_over: frozenset[PeerId] = frozenset()

    offer: Ready | None = None
    # The encoded work that `offer` announces.
    contribution: Offer = NOTHING
    # Leaders that have this node's offer for this view.
    offered_to: frozenset[PeerId] = frozenset()
    # The latest offer of each peer, for this view or a later one.
    readies: Mapping[PeerId, tuple[Signed, Ready]] = {}

    plan: OpenPlan | None = None
    plan_signed: Signed | None = None
    # The last plan that each peer withdrew from; kept also before the plan itself arrives.
    withdrawn: Mapping[PeerId, Digest] = {}
    # The last plans that this node withdrew from.
    declined: tuple[Digest, ...] = ()
    inclusion: Inclusion | None = None
    inclusion_signed: Signed | None = None
    # Contributors whose part of this node's slices arrived, whole.
    held_contributors: frozenset[int] = frozenset()
    # Whether half of the scatter's time is over.
    overdue: bool = False
    # Whether the leader has a hold report of this node: from then on every change is reported.
    hold_reported: bool = False
    # Slices whose result arrived under the current inclusion.
    results: frozenset[int] = frozenset()

    # This node's last vote after this tip.
    vote: Vote | None = None
    # The outcome whose state is in the spare buffer.
    spare: Vote | None = None
    # Signatures by voter, by the digest of the vote's payload.
    votes: Mapping[Digest, Mapping[PeerId, bytes]] = {}
    # The last vote of each peer: a peer has one vote in a view.
    last_votes: Mapping[PeerId, Vote] = {}
    # The last outcome that this node computed, by the same digest: it can assemble its certificate.
    outcomes: Mapping[Digest, VotedOutcome] = {}
    # Whether this node asked members for a certificate in this vote.
    inquired: bool = False

    leader_state: LeaderState = LeaderState()
    merge: PendingMerge | None = None
    # For each parent: the first view of its round in which this node may still act. Kept for rounds
    # that were left for a merge, and for merges that were left.
    view_records: Mapping[Digest, int] = {}
    # The certificate that ADOPT and FETCH move to.
    target: OpenCertificate | None = None
    # In MERGE: the tip of the other branch while its state is downloaded.
    merge_target: Tip | None = None
    # Runs of rules 4: what this node knows for the plans that it leads.
    notices: Notices = Notices()

    @property
    def parents(self) -> tuple[Digest, ...]:
        """The parents of the certificate that this round would make."""
        return (
            merge_parents(self.tip.hash, self.merge.other.hash) if self.merge else (self.tip.hash,)
        )

    @property
    def parent(self) -> Digest:
        """The digest that names this round."""
        return merge_round(self.parents)

    @property
    def number(self) -> int:
        """The number of the certificate that this round would make."""
        return max(self.tip.number, self.merge.other.number if self.merge else 0) + 1

    @property
    def group_history(self) -> GroupSizeHistory | None:
        """What the last plan left for this round's plan; a merge of two branches starts anew."""
        return None if self.merge else self.tip.layout

    @property
    def preferred(self) -> Tip:
        """This node's tip; in a merge, the tip of the preferred branch."""
        if self.merge is None:
            return self.tip
        return self.merge.preferred or prefer(self.tip, self.merge.other)

    @property
    def left_round_s(self) -> float | None:
        """The length of rounds that this round's plan remembers; see `Tip.round_s`."""
        return self.preferred.round_s

    @property
    def round_s(self) -> float:
        """Seconds of local training in the round after this node's tip."""
        return round_length(self.tip.round_s, self.context.manifest.round)

    @property
    def record(self) -> MembershipRecord | None:
        """Who votes on this round's certificate; None in runs of rules 2 and 3."""
        return self.preferred.record

    def counted_voters(self, here: Collection[PeerId]) -> frozenset[PeerId]:
        """The voters whose votes count while the peers `here` take part.

        A voter whose leave this node knows, or whose revocation it lists, counts only while it is
        here.
        """
        record = self.record
        if record is None:
            return frozenset()
        revoked = map(revoked_in, self.notices.revocations)
        return quorum_of(record, here, {*self.notices.leaves, *revoked}, 0).voters

    @property
    def awaited(self) -> frozenset[PeerId]:
        """The other live nodes whose progress this node goes by.

        In runs of rules 4 they are the voters: any number of free keys says anything.
        """
        here = self.live - self.lost
        return here if self.record is None else here.intersection(self.record.voters)

    def may_lead(self, now: float) -> frozenset[PeerId]:
        """The peers that may lead a view: the live ones, and this node.

        Right after a certificate also its members: their beacons at the new tip are on their way.
        """
        arriving = now < self.began + self.context.manifest.round.ready_s
        members = self.tip.members if arriving else ()
        return (self.live.union(members) - self.lost) | {self.context.me}

    @property
    def leader_order(self) -> tuple[PeerId, ...]:
        """The leaders in turn.

        Until rules 4, they are the members that the tips name, then all other known peers; from
        rules 4 on, the voters.
        """
        if self.record is not None:
            return voter_order(self.context.run, self.record.counted, self.number)
        members = {*self.tip.members, *(self.merge.other.members if self.merge else ())}
        newcomers = (self.live | {self.context.me}).difference(members)
        leader_order = rules_of(self.context.manifest).leader_order
        return leader_order(self.parent, members) + leader_order(self.parent, newcomers)

    @property
    def leader(self) -> PeerId:
        """The leader of the current view."""
        return leader_of(self.leader_order, self.view)

    @property
    def decided(self) -> bool:
        """Whether this round's certificate arrived before this node computed its state."""
        return self.target is not None

    @property
    def in_later_view(self) -> frozenset[PeerId]:
        """The peers in a later view of this round; they never return to this one."""
        return frozenset(
            peer for peer, (_, ready) in self.readies.items() if ready.view > self.view
        )

    @property
    def absent(self) -> frozenset[PeerId]:
        """The peers that do nothing more for the current plan: nothing waits for them.

        They are lost, in a later view, or withdrawn from the plan.
        """
        plan = self.plan
        withdrawn = {
            peer
            for peer, name in self.withdrawn.items()
            if plan is not None and name == plan.digest
        }
        return self.lost | self.in_later_view | withdrawn

    @property
    def leads(self) -> bool:
        """Whether this node leads the current plan; without a plan, the current view."""
        return (self.plan.leader if self.plan else self.leader) == self.context.me
