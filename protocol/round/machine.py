"""The round's rules as one transition table.

A node trains until the round's end and makes an offer of what it learned (TRAIN, OFFER). The offer
goes to the leader of the view (READY); a leader that says nothing in time is passed over, and the
same offer goes to the next one. The leader's plan makes a node a member: it sends every reducer its
slice (SCATTER) until the leader's cut says whose contributions count. Then slices are summed,
results gathered, the outer step computed (REDUCE) and a vote cast for the state that came out
(VOTE). A majority of the plan is a certificate. A node that computed that state adopts it (ADOPT),
any other downloads it (FETCH), and whoever was left out watches for it (WATCH). Whatever fails ends
the view, never the round: offer and votes are kept.

In each view a node scatters and votes at most once, also when it is started again in the middle of
it: before it does the first of them, it is durable that the view is taken. It never goes back to an
earlier view.

`TABLE` is the whole of it: an event that has no row in a phase is ignored there, and a handler that
led elsewhere than its row says is our bug.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace

from protocol.certificates.certificate import Tip
from protocol.digest import Digest
from protocol.errors import InvariantBroken
from protocol.identity import PeerId
from protocol.round import merge_phase, offer_phase, reduce_phases, vote_phase
from protocol.round.actions import Action
from protocol.round.events import (
    CertificateAdopted,
    CertificateReceived,
    ContributionsReceived,
    DeadlinePassed,
    Event,
    ForkFound,
    HoldReportReceived,
    InclusionReceived,
    LivePeersChanged,
    MergePrepared,
    OfferMade,
    OutcomeComputed,
    PeerLost,
    PlanReceived,
    ReadyReceived,
    ResultReceived,
    StateBytesReceived,
    StateReceived,
    StateUnavailable,
    TrainingFinished,
    ViewNotPersisted,
    VoteReceived,
    WithdrawalReceived,
)
from protocol.round.phase import Phase
from protocol.round.state import RoundState, RunContext
from protocol.round.views import (
    Step,
    enter,
    note_lost,
    pass_view,
    training_deadline,
    withdrawal_received,
)


def begin(
    context: RunContext,
    tip: Tip,
    now: float,
    *,
    live: frozenset[PeerId] = frozenset(),
    age_s: float = 0.0,
    view_records: Mapping[Digest, int] = MappingProxyType({}),
) -> RoundState:
    """The state of a node that holds the anchor of `tip` and trains; the others have trained for
    `age_s` already.

    `stands` has, by parent, the first view that was not taken before a restart.
    """
    state = RoundState(
        context=context,
        tip=tip,
        phase=Phase.TRAIN,
        deadline=math.inf,
        live=live,
        view=view_records.get(tip.hash, 0),
        view_records=view_records,
    )
    return replace(state, deadline=training_deadline(state, now, age_s))


def vote_overdue(state: RoundState, event: DeadlinePassed, now: float) -> Step:
    if not state.inquired:
        return vote_phase.inquire(state, now)
    return pass_view(state, now, f"view {state.view} ended without a certificate")


def adopted(state: RoundState, event: CertificateAdopted, now: float) -> Step:
    fresh = begin(
        state.context,
        event.tip,
        now,
        live=frozenset(),
        age_s=event.age_s,
        view_records=state.view_records,
    )
    return enter(
        fresh,
        Phase.TRAIN,
        now,
        f"training for round {fresh.number} from certificate {event.tip.number}",
        deadline=fresh.deadline,
    )


Handler = Callable[[RoundState, Any, float], Step]
P = Phase
# Where the end of a view can lead: to the next one, or to training alone.
_VIEW = {P.READY, P.TRAIN}
_MOVE = {P.ADOPT, P.FETCH}

TABLE: Mapping[tuple[Phase, type[Event]], tuple[Handler, set[Phase]]] = {
    (P.TRAIN, DeadlinePassed): (offer_phase.end_training, {P.OFFER}),
    (P.TRAIN, TrainingFinished): (offer_phase.end_training, {P.OFFER}),
    (P.TRAIN, ReadyReceived): (offer_phase.ready_received, {P.TRAIN, P.OFFER}),
    (P.TRAIN, LivePeersChanged): (offer_phase.live_changed, {P.TRAIN}),
    (P.TRAIN, PeerLost): (note_lost, {P.TRAIN}),
    (P.TRAIN, PlanReceived): (offer_phase.plan_missed, {P.TRAIN}),
    (P.TRAIN, WithdrawalReceived): (withdrawal_received, {P.TRAIN}),
    (P.TRAIN, CertificateReceived): (vote_phase.follow, {P.TRAIN, *_MOVE}),
    (P.TRAIN, StateReceived): (vote_phase.state_received, {P.TRAIN, P.ADOPT}),
    (P.OFFER, OfferMade): (offer_phase.offer_made, _VIEW),
    (P.OFFER, ReadyReceived): (offer_phase.ready_received, {P.OFFER}),
    (P.OFFER, LivePeersChanged): (offer_phase.live_changed, {P.OFFER}),
    (P.OFFER, PeerLost): (note_lost, {P.OFFER}),
    (P.OFFER, PlanReceived): (offer_phase.plan_missed, {P.OFFER}),
    (P.OFFER, WithdrawalReceived): (withdrawal_received, {P.OFFER}),
    (P.OFFER, CertificateReceived): (vote_phase.follow, {P.OFFER, *_MOVE}),
    (P.OFFER, StateReceived): (vote_phase.state_received, {P.OFFER, P.ADOPT}),
    (P.READY, DeadlinePassed): (offer_phase.ready_overdue, _VIEW),
    (P.READY, ReadyReceived): (offer_phase.ready_received, {P.READY}),
    (P.READY, LivePeersChanged): (offer_phase.live_changed, {P.READY}),
    (P.READY, PeerLost): (offer_phase.lost_in_ready, _VIEW),
    (P.READY, PlanReceived): (offer_phase.plan_received, {P.READY, P.SCATTER, P.WATCH, P.TRAIN}),
    (P.READY, WithdrawalReceived): (withdrawal_received, {P.READY}),
    (P.READY, VoteReceived): (vote_phase.vote_received, {P.READY, P.ADOPT}),
    (P.READY, ViewNotPersisted): (offer_phase.view_not_persisted, {P.WATCH}),
    (P.READY, CertificateReceived): (vote_phase.follow, {P.READY, *_MOVE}),
    (P.READY, StateReceived): (vote_phase.state_received, {P.READY, P.ADOPT}),
    (P.SCATTER, DeadlinePassed): (reduce_phases.scatter_overdue, {P.SCATTER, P.FETCH, *_VIEW}),
    (P.SCATTER, ReadyReceived): (reduce_phases.ready_in_scatter, {P.SCATTER, *_VIEW}),
    (P.SCATTER, PlanReceived): (offer_phase.plan_missed, {P.SCATTER}),
    (P.SCATTER, WithdrawalReceived): (reduce_phases.withdrawn_in_scatter, {P.SCATTER, *_VIEW}),
    (P.SCATTER, LivePeersChanged): (offer_phase.live_changed, {P.SCATTER}),
    (P.SCATTER, PeerLost): (reduce_phases.lost_in_scatter, {P.SCATTER, *_VIEW}),
    (P.SCATTER, ContributionsReceived): (reduce_phases.contributions_received, {P.SCATTER}),
    (P.SCATTER, HoldReportReceived): (reduce_phases.hold_report_received, {P.SCATTER, P.READY}),
    (P.SCATTER, InclusionReceived): (
        reduce_phases.inclusion_received,
        {P.SCATTER, P.REDUCE, P.VOTE, P.WATCH, *_MOVE},
    ),
    (P.SCATTER, VoteReceived): (vote_phase.vote_received, {P.SCATTER, P.ADOPT}),
    (P.SCATTER, ViewNotPersisted): (offer_phase.view_not_persisted, {P.WATCH}),
    (P.SCATTER, CertificateReceived): (vote_phase.follow, {P.SCATTER, *_MOVE}),
    (P.SCATTER, StateReceived): (vote_phase.state_received, {P.SCATTER, P.ADOPT}),
    (P.REDUCE, DeadlinePassed): (reduce_phases.reduce_overdue, {P.REDUCE, P.FETCH, P.READY}),
    (P.REDUCE, ReadyReceived): (reduce_phases.ready_in_reduce, {P.REDUCE, P.READY}),
    (P.REDUCE, PlanReceived): (offer_phase.plan_missed, {P.REDUCE}),
    (P.REDUCE, WithdrawalReceived): (reduce_phases.withdrawn_in_reduce, {P.REDUCE, P.READY}),
    (P.REDUCE, LivePeersChanged): (offer_phase.live_changed, {P.REDUCE}),
    (P.REDUCE, PeerLost): (reduce_phases.lost_in_reduce, {P.REDUCE, P.READY}),
    (P.REDUCE, InclusionReceived): (reduce_phases.inclusion_received, {P.REDUCE, P.WATCH}),
    (P.REDUCE, ResultReceived): (reduce_phases.result_received, {P.REDUCE}),
    (P.REDUCE, OutcomeComputed): (vote_phase.cast, {P.REDUCE, P.VOTE, *_MOVE}),
    (P.REDUCE, VoteReceived): (vote_phase.vote_received, {P.REDUCE}),
    (P.REDUCE, CertificateReceived): (vote_phase.follow, {P.REDUCE, P.FETCH}),
    (P.REDUCE, StateReceived): (vote_phase.state_received, {P.REDUCE, P.ADOPT}),
    (P.VOTE, DeadlinePassed): (vote_overdue, {P.VOTE, *_VIEW}),
    (P.VOTE, ReadyReceived): (offer_phase.ready_received, {P.VOTE, P.READY}),
    (P.VOTE, LivePeersChanged): (offer_phase.live_changed, {P.VOTE}),
    (P.VOTE, PeerLost): (vote_phase.lost_in_vote, {P.VOTE, *_VIEW}),
    (P.VOTE, PlanReceived): (offer_phase.plan_missed, {P.VOTE}),
    (P.VOTE, WithdrawalReceived): (vote_phase.withdrawn_in_vote, {P.VOTE, *_VIEW}),
    (P.VOTE, InclusionReceived): (reduce_phases.serve, {P.VOTE}),
    (P.VOTE, VoteReceived): (vote_phase.vote_received, {P.VOTE, P.ADOPT, *_VIEW}),
    (P.VOTE, CertificateReceived): (vote_phase.follow, {P.VOTE, *_MOVE}),
    (P.VOTE, StateReceived): (vote_phase.state_received, {P.VOTE, P.ADOPT}),
    (P.WATCH, DeadlinePassed): (offer_phase.watch_overdue, _VIEW),
    (P.WATCH, ReadyReceived): (offer_phase.ready_received, {P.WATCH}),
    (P.WATCH, LivePeersChanged): (offer_phase.live_changed, {P.WATCH}),
    (P.WATCH, PeerLost): (note_lost, {P.WATCH}),
    (P.WATCH, PlanReceived): (offer_phase.plan_missed, {P.WATCH}),
    (P.WATCH, WithdrawalReceived): (withdrawal_received, {P.WATCH}),
    (P.WATCH, CertificateReceived): (vote_phase.follow, {P.WATCH, *_MOVE}),
    (P.WATCH, StateReceived): (vote_phase.state_received, {P.WATCH, P.ADOPT}),
    (P.TRAIN, ForkFound): (merge_phase.fork_found, {P.MERGE}),
    (P.READY, ForkFound): (merge_phase.fork_found, {P.READY, P.MERGE}),
    (P.WATCH, ForkFound): (merge_phase.fork_found, {P.WATCH, P.MERGE}),
    (P.MERGE, MergePrepared): (merge_phase.merge_prepared, {P.READY}),
    (P.MERGE, DeadlinePassed): (merge_phase.merge_overdue, {P.TRAIN}),
    (P.MERGE, StateBytesReceived): (merge_phase.state_bytes_received, {P.MERGE}),
    (P.MERGE, StateReceived): (merge_phase.state_received, {P.MERGE}),
    (P.MERGE, StateUnavailable): (merge_phase.state_unavailable, {P.MERGE, P.TRAIN}),
    (P.MERGE, LivePeersChanged): (offer_phase.live_changed, {P.MERGE}),
    (P.MERGE, PeerLost): (note_lost, {P.MERGE}),
    (P.MERGE, PlanReceived): (offer_phase.plan_missed, {P.MERGE}),
    (P.MERGE, CertificateReceived): (vote_phase.follow, {P.MERGE, P.FETCH}),
    (P.ADOPT, CertificateAdopted): (adopted, {P.TRAIN}),
    (P.ADOPT, StateUnavailable): (vote_phase.state_unavailable, {P.ADOPT, P.TRAIN}),
    (P.FETCH, LivePeersChanged): (vote_phase.live_in_fetch, {P.FETCH}),
    (P.FETCH, StateBytesReceived): (vote_phase.state_bytes_received, {P.FETCH}),
    (P.FETCH, StateReceived): (vote_phase.state_received, {P.FETCH, P.ADOPT}),
    (P.FETCH, StateUnavailable): (vote_phase.state_unavailable, {P.FETCH, P.TRAIN}),
    (P.FETCH, PlanReceived): (offer_phase.plan_missed, {P.FETCH}),
    (P.FETCH, DeadlinePassed): (vote_phase.fetch_overdue, {P.TRAIN}),
    (P.FETCH, CertificateReceived): (vote_phase.retarget, {P.FETCH}),
}


def step(state: RoundState, event: Event, now: float) -> tuple[RoundState, list[Action]]:
    """One event.

    Pure: the same arguments give the same result. Raises `InvariantBroken` when a handler leaves
    the table.
    """
    row = TABLE.get((state.phase, type(event)))
    if row is None:
        return state, []
    handler, leads_to = row
    after, actions = handler(state, event, now)
    if after.phase not in leads_to:
        raise InvariantBroken(
            f"{type(event).__name__} in {state.phase.value} led to {after.phase.value}, which the table does not allow"
        )
    if after.view < state.view and after.parent == state.parent and after.phase is not Phase.MERGE:
        raise InvariantBroken(f"from view {state.view} back to view {after.view}")
    return after, actions
