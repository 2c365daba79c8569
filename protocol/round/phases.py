"""The words of the round machine: its phases, its state, what can happen to it, and what it can ask
for.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import msgspec

from protocol.certificates.certificate import OpenCertificate, Tip
from protocol.certificates.leader_order import leader_of
from protocol.certificates.merge import merge_parents, merge_round
from protocol.contribution.offer import NOTHING, Offer
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.journal import JournalEvent
from protocol.messages import HoldReport, Inclusion, Message, Ready, Signed, Vote, Withdrawal
from protocol.planning.group_size_history import GroupSizeHistory
from protocol.planning.plan import OpenPlan
from protocol.rules.registry import rules_of
from protocol.run.manifest import Manifest


class Phase(Enum):
    """Where a node stands in a round."""

    TRAIN = "train"  # local steps, until the round's end
    # The trainer hands over, the ledger encodes, the disk makes it durable.
    OFFER = "offer"
    # The offer is with the view's leader; waiting for its plan.
    READY = "ready"
    # Slices go to their reducers; waiting for the cut.
    SCATTER = "scatter"
    # Own slices are summed, results gathered, the outer step computed.
    REDUCE = "reduce"
    # The vote is out; waiting for a certificate.
    VOTE = "vote"
    # Left out of the plan or the cut; waiting for the others' certificate.
    WATCH = "watch"
    # Another branch was met; downloading its anchor and averaging it with ours into the spare
    # buffer.
    MERGE = "merge"
    ADOPT = "adopt"  # the spare buffer becomes the anchor
    # The anchor of a certificate that this node did not compute is coming; training goes on, rounds
    # wait for it.
    FETCH = "fetch"


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change during a run."""

    run: Digest
    me: PeerId
    manifest: Manifest
    chunks: int  # of the run's model


class Lead(msgspec.Struct, frozen=True, kw_only=True):
    """What the leader of the current view gathers.

    `held` maps a member to the contributors it holds whole.
    """

    held: Mapping[PeerId, frozenset[int]] = {}
    # Taken for dead because they said nothing in time.
    silent: frozenset[PeerId] = frozenset()
    # So slow that most had their part when they had not: left out of this plan, alive as they are.
    slow: frozenset[PeerId] = frozenset()


class Merge(msgspec.Struct, frozen=True, kw_only=True):
    """A merge under way: the other branch's tip, and the digest of the averaged state in the spare
    buffer.
    """

    other: Tip
    state: Digest
    first_view: int = 0  # where this attempt at it began


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a certificate is assembled from, besides the votes."""

    vote: Vote
    plan: OpenPlan
    plan_signed: Signed
    cut_signed: Signed


class State(msgspec.Struct, frozen=True, kw_only=True):
    """One node in one round (parent = `tip`)."""

    rules: Rules
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
    gone: frozenset[PeerId] = frozenset()  # lost since this round began
    # Leaders just passed over: a plan does not wait for them.
    passed: frozenset[PeerId] = frozenset()
    offer: Ready | None = None
    # What `offer` announces: the encoded work itself.
    contribution: Offer = NOTHING
    asked: frozenset[PeerId] = frozenset()  # leaders that have our Ready of this view
    # The latest of each peer, for this view or a later one.
    readies: Mapping[PeerId, tuple[Signed, Ready]] = {}
    plan: OpenPlan | None = None
    plan_signed: Signed | None = None
    # The last plan that each peer said it takes no part in. Kept before the plan itself is here.
    withdrawn: Mapping[PeerId, Digest] = {}
    declined: tuple[Digest, ...] = ()  # the last plans that this node said so of
    cut: Inclusion | None = None
    cut_signed: Signed | None = None
    # Contributors whose part of our slices we hold whole.
    held: frozenset[int] = frozenset()
    # Whether half of the scatter's time is over.
    overdue: bool = False
    # Whether the leader has a Held from us: from then on it hears of every change.
    told: bool = False
    # Slices whose result under the current cut is here.
    results: frozenset[int] = frozenset()
    # The last one this node cast after this tip.
    vote: Vote | None = None
    # The outcome whose state is in the spare buffer.
    spare: Vote | None = None
    votes: Mapping[Digest, Mapping[PeerId, bytes]] = {}  # by the digest of the vote's payload
    # The last vote of each peer: it has one in a view.
    voted: Mapping[PeerId, Vote] = {}
    # The last one this node computed, by the same digest: it can assemble its certificate.
    outcomes: Mapping[Digest, Outcome] = {}
    # Whether members were asked for a certificate in this vote.
    inquired: bool = False
    lead: Lead = Lead()
    merge: Merge | None = None
    # Rounds left for a merge, and merges left, by parent: the view in which each is taken up again.
    stands: Mapping[Digest, int] = {}
    target: OpenCertificate | None = None  # what ADOPT and FETCH move to
    # In MERGE: the other branch, whose state is coming.
    meeting: Tip | None = None

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
    def remembered(self) -> GroupSizeHistory | None:
        """What the last plan left for this round's; two branches that meet begin anew."""
        return None if self.merge else self.tip.layout

    @property
    def order(self) -> tuple[PeerId, ...]:
        """The leaders after the tip (or both tips), in turn: the members named there, and after
        them whoever else is known.
        """
        members = {*self.tip.members, *(self.merge.other.members if self.merge else ())}
        newcomers = (self.live | {self.rules.me}).difference(members)
        leader_order = rules_of(self.rules.manifest).leader_order
        return leader_order(self.parent, members) + leader_order(self.parent, newcomers)

    @property
    def leader(self) -> PeerId:
        return leader_of(self.order, self.view)

    @property
    def decided(self) -> bool:
        """Whether this round's certificate is here already and only our own computation of it is
        not.
        """
        return self.target is not None

    @property
    def later(self) -> frozenset[PeerId]:
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
        return self.gone | self.later | elsewhere

    @property
    def hopeless(self) -> bool:
        """Whether so many members are absent that no majority can vote."""
        plan, absent = self.plan, self.absent
        return plan is not None and sum(peer not in absent for peer in plan.members) < plan.majority

    @property
    def leads(self) -> bool:
        """Whether the current plan (before there is one, the current view) is this node's to lead."""
        return (self.plan.leader if self.plan else self.leader) == self.rules.me


# ---------------------------------------------------------------------------------------- what can happen


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the machine's events.

    What came from a peer was verified before: signature, run, sizes.
    """


class Tick(Event, frozen=True, kw_only=True):
    """The deadline passed.

    `training` are the others at our tip that still train, as their beacons say.
    """

    training: frozenset[PeerId] = frozenset()


class Nothing(Event, frozen=True, kw_only=True):
    """The driver woke up for another reason; no phase has a row for it."""


class RoundEnded(Event, frozen=True, kw_only=True):
    """Local training reached its number of steps."""


class OfferMade(Event, frozen=True, kw_only=True):
    """Our offer is durable.

    `ready` announces it for view 0; the machine puts in the view when it sends the message.
    """

    ready: Ready
    offer: Offer


class LiveChanged(Event, frozen=True, kw_only=True):
    """Who is alive, and of them whom this node would not plan with
    (`protocol/network/peer_health.py`).
    """

    live: frozenset[PeerId]
    avoided: frozenset[PeerId] = frozenset()


class PeerGone(Event, frozen=True, kw_only=True):
    """The connection to a peer broke."""

    peer: PeerId


class ReadyGot(Event, frozen=True, kw_only=True):
    signed: Signed
    ready: Ready


class PlanGot(Event, frozen=True, kw_only=True):
    signed: Signed
    plan: OpenPlan


class HeldHere(Event, frozen=True, kw_only=True):
    """The contributors (member indices) of this plan whose part of our own slice is here, checked."""

    plan: Digest
    contributors: frozenset[int]


class HeldGot(Event, frozen=True, kw_only=True):
    peer: PeerId
    held: HoldReport


class WithdrawalGot(Event, frozen=True, kw_only=True):
    peer: PeerId
    withdrawal: Withdrawal


class CutGot(Event, frozen=True, kw_only=True):
    signed: Signed
    cut: Inclusion


class ResultGot(Event, frozen=True, kw_only=True):
    """The result of one slice under the cut with this digest is here, checked."""

    cut: Digest
    slice: int


class Computed(Event, frozen=True, kw_only=True):
    """All results are here and the outer step is in the spare buffer."""

    vote: Vote


class VoteGot(Event, frozen=True, kw_only=True):
    signed: Signed
    vote: Vote


class CertificateGot(Event, frozen=True, kw_only=True):
    """A verified certificate that extends the tip, or leads to a tip to prefer."""

    certificate: OpenCertificate


class ForkGot(Event, frozen=True, kw_only=True):
    """Another branch has living members; neither its tip nor ours descends from the other."""

    other: Tip


class MergePrepared(Event, frozen=True, kw_only=True):
    """The average of our state and the other branch's is in the spare buffer; `state` is its
    digest.

    `ready` has nothing to offer.
    """

    other: Tip
    state: Digest
    ready: Ready


class Adopted(Event, frozen=True, kw_only=True):
    """The anchor of `tip` is in place and training began `age_s` after the others began."""

    tip: Tip
    age_s: float = 0.0


class StateComing(Event, frozen=True, kw_only=True):
    """Verified bytes of the state of this certificate came."""

    certificate: Digest


class StateHere(Event, frozen=True, kw_only=True):
    """The state of a certificate is here, whole and checked.

    `tip` is where this node stood then, and `ahead` whether the certificate descends from it. The
    state of another branch is averaged with ours; to adopt it would drop what our branch certified.
    """

    certificate: OpenCertificate
    tip: Digest
    ahead: bool


class StateLost(Event, frozen=True, kw_only=True):
    """Nobody gave the state of this certificate; `reason` says why."""

    certificate: Digest
    reason: str


class StandLost(Event, frozen=True, kw_only=True):
    """What `PersistView` asked for could not be made durable; what was asked for after it was not
    done.
    """

    reason: str


# ---------------------------------------------------------------------------------------- what can be asked for


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what the machine asks its driver to do."""


class MakeOffer(Action, frozen=True, kw_only=True):
    """Collect from the trainer, add to the ledger, encode under the next seq, make it durable; then
    `OfferMade`.
    """


class TrainOn(Action, frozen=True, kw_only=True):
    """Go on training from the local parameters; nothing where the trainer is at work."""


class PersistView(Action, frozen=True, kw_only=True):
    """Make durable that this view of the round after `parent` is taken, before doing what is asked
    for next: after a restart the node is in a later one.

    Where that fails, `StandLost` and nothing else. Costs nothing when it is durable already.
    """

    parent: Digest
    view: int


class Send(Action, frozen=True, kw_only=True):
    """Sign and send. What is sent to ourselves comes back as the event it would have been."""

    to: tuple[PeerId, ...]
    message: Message


class Forward(Action, frozen=True, kw_only=True):
    """Send what is signed already."""

    to: tuple[PeerId, ...]
    signed: Signed


class Scatter(Action, frozen=True, kw_only=True):
    """Send every reducer its slice of `offer` and receive theirs; `HeldHere` as they come.

    `offer` is the one that the plan names for this node.
    """

    plan: OpenPlan
    offer: Offer


class Reduce(Action, frozen=True, kw_only=True):
    """Move slices to their owners under this cut, sum our own, send and take results (`ResultGot`),
    compute (`Computed`).
    """

    plan: OpenPlan
    cut: Inclusion
    digest: Digest


class Serve(Action, frozen=True, kw_only=True):
    """Do for this cut what others need of us, and compute nothing: our vote under an earlier one
    stands.
    """

    plan: OpenPlan
    cut: Inclusion
    digest: Digest


class HandOn(Action, frozen=True, kw_only=True):
    """Send these members the results of these slices of a plan, which others made who are absent
    now.

    What they signed proves itself.
    """

    plan: Digest
    slices: tuple[int, ...]
    to: tuple[int, ...]  # member indices


class Abandon(Action, frozen=True, kw_only=True):
    """Stop the exchange of the view that ended; what it held is free."""


class Inquire(Action, frozen=True, kw_only=True):
    """Ask these members whether they hold a certificate after our tip."""

    peers: tuple[PeerId, ...]


class Publish(Action, frozen=True, kw_only=True):
    """Tell the members of a certificate that was assembled here, and everybody else by `gossip`.

    The machine adopts it in the same step; nothing comes back from this action.
    """

    certificate: OpenCertificate
    to: tuple[PeerId, ...]
    gossip: bool


class Adopt(Action, frozen=True, kw_only=True):
    """What we computed, or `downloaded`, is what was certified: it becomes the anchor.

    Then `Adopted`.
    """

    certificate: OpenCertificate
    downloaded: bool = False


class Examine(Action, frozen=True, kw_only=True):
    """Look after the reducers of a certificate with what came of them, before it is let go.

    `disputed`: another state was computed here from it.
    """

    certificate: OpenCertificate
    disputed: bool


class Fetch(Action, frozen=True, kw_only=True):
    """Have the state of this certificate downloaded beside all else: `StateComing` while it comes,
    then `StateHere` or `StateLost`.

    Costs nothing where that is under way.
    """

    certificate: OpenCertificate


class GiveUp(Action, frozen=True, kw_only=True):
    """The state of this certificate does not come: do without it for a while.

    `merging`: it is another branch's. `held_s`: for how long it kept this node out of rounds.
    """

    certificate: Digest
    merging: bool = False
    held_s: float = 0.0


class PrepareMerge(Action, frozen=True, kw_only=True):
    """Have the other branch's state downloaded: `StateComing` while it comes, then `StateHere` or
    `StateLost`.
    """

    other: Tip


class Average(Action, frozen=True, kw_only=True):
    """The other branch's state is here: average it with ours into the spare buffer; then
    `MergePrepared`.
    """

    other: Tip


class Refuse(Action, frozen=True, kw_only=True):
    peer: PeerId
    reason: str
    detail: str


class RecordEvent(Action, frozen=True, kw_only=True):
    """For the journal."""

    event: JournalEvent
