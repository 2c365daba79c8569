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
from protocol.round.phases import (
    Action,
    Adopted,
    CertificateGot,
    Computed,
    CutGot,
    Event,
    ForkGot,
    HeldGot,
    HeldHere,
    LiveChanged,
    MergePrepared,
    OfferMade,
    PeerGone,
    Phase,
    PlanGot,
    ReadyGot,
    ResultGot,
    RoundEnded,
    Rules,
    StandLost,
    State,
    StateComing,
    StateHere,
    StateLost,
    Tick,
    VoteGot,
    WithdrawalGot,
)
from protocol.round.views import (
    Step,
    enter,
    note_gone,
    pass_view,
    training_deadline,
    withdrawal_got,
)


def begin(
    rules: Rules,
    tip: Tip,
    now: float,
    *,
    live: frozenset[PeerId] = frozenset(),
    age_s: float = 0.0,
    stands: Mapping[Digest, int] = MappingProxyType({}),
) -> State:
    """The state of a node that holds the anchor of `tip` and trains; the others have trained for
    `age_s` already.

    `stands` has, by parent, the first view that was not taken before a restart.
    """
    state = State(
        rules=rules,
        tip=tip,
        phase=Phase.TRAIN,
        deadline=math.inf,
        live=live,
        view=stands.get(tip.hash, 0),
        stands=stands,
    )
    return replace(state, deadline=training_deadline(state, now, age_s))


def vote_overdue(state: State, event: Tick, now: float) -> Step:
    if not state.inquired:
        return vote_phase.inquire(state, now)
    return pass_view(state, now, f"view {state.view} ended without a certificate")


def adopted(state: State, event: Adopted, now: float) -> Step:
    fresh = begin(
        state.rules, event.tip, now, live=frozenset(), age_s=event.age_s, stands=state.stands
    )
    return enter(
        fresh,
        Phase.TRAIN,
        now,
        f"training for round {fresh.number} from certificate {event.tip.number}",
        deadline=fresh.deadline,
    )


Handler = Callable[[State, Any, float], Step]
P = Phase
# Where the end of a view can lead: to the next one, or to training alone.
_VIEW = {P.READY, P.TRAIN}
_MOVE = {P.ADOPT, P.FETCH}

TABLE: Mapping[tuple[Phase, type[Event]], tuple[Handler, set[Phase]]] = {
    (P.TRAIN, Tick): (offer_phase.end_training, {P.OFFER}),
    (P.TRAIN, RoundEnded): (offer_phase.end_training, {P.OFFER}),
    (P.TRAIN, ReadyGot): (offer_phase.ready_got, {P.TRAIN, P.OFFER}),
    (P.TRAIN, LiveChanged): (offer_phase.live_changed, {P.TRAIN}),
    (P.TRAIN, PeerGone): (note_gone, {P.TRAIN}),
    (P.TRAIN, PlanGot): (offer_phase.plan_missed, {P.TRAIN}),
    (P.TRAIN, WithdrawalGot): (withdrawal_got, {P.TRAIN}),
    (P.TRAIN, CertificateGot): (vote_phase.follow, {P.TRAIN, *_MOVE}),
    (P.TRAIN, StateHere): (vote_phase.state_here, {P.TRAIN, P.ADOPT}),
    (P.OFFER, OfferMade): (offer_phase.offer_made, _VIEW),
    (P.OFFER, ReadyGot): (offer_phase.ready_got, {P.OFFER}),
    (P.OFFER, LiveChanged): (offer_phase.live_changed, {P.OFFER}),
    (P.OFFER, PeerGone): (note_gone, {P.OFFER}),
    (P.OFFER, PlanGot): (offer_phase.plan_missed, {P.OFFER}),
    (P.OFFER, WithdrawalGot): (withdrawal_got, {P.OFFER}),
    (P.OFFER, CertificateGot): (vote_phase.follow, {P.OFFER, *_MOVE}),
    (P.OFFER, StateHere): (vote_phase.state_here, {P.OFFER, P.ADOPT}),
    (P.READY, Tick): (offer_phase.ready_overdue, _VIEW),
    (P.READY, ReadyGot): (offer_phase.ready_got, {P.READY}),
    (P.READY, LiveChanged): (offer_phase.live_changed, {P.READY}),
    (P.READY, PeerGone): (offer_phase.gone_in_ready, _VIEW),
    (P.READY, PlanGot): (offer_phase.plan_got, {P.READY, P.SCATTER, P.WATCH, P.TRAIN}),
    (P.READY, WithdrawalGot): (withdrawal_got, {P.READY}),
    (P.READY, VoteGot): (vote_phase.take_vote, {P.READY, P.ADOPT}),
    (P.READY, StandLost): (offer_phase.stand_lost, {P.WATCH}),
    (P.READY, CertificateGot): (vote_phase.follow, {P.READY, *_MOVE}),
    (P.READY, StateHere): (vote_phase.state_here, {P.READY, P.ADOPT}),
    (P.SCATTER, Tick): (reduce_phases.scatter_overdue, {P.SCATTER, P.FETCH, *_VIEW}),
    (P.SCATTER, ReadyGot): (reduce_phases.ready_in_scatter, {P.SCATTER, *_VIEW}),
    (P.SCATTER, PlanGot): (offer_phase.plan_missed, {P.SCATTER}),
    (P.SCATTER, WithdrawalGot): (reduce_phases.withdrawn_in_scatter, {P.SCATTER, *_VIEW}),
    (P.SCATTER, LiveChanged): (offer_phase.live_changed, {P.SCATTER}),
    (P.SCATTER, PeerGone): (reduce_phases.gone_in_scatter, {P.SCATTER, *_VIEW}),
    (P.SCATTER, HeldHere): (reduce_phases.held_here, {P.SCATTER}),
    (P.SCATTER, HeldGot): (reduce_phases.held_got, {P.SCATTER, P.READY}),
    (P.SCATTER, CutGot): (reduce_phases.cut_got, {P.SCATTER, P.REDUCE, P.VOTE, P.WATCH, *_MOVE}),
    (P.SCATTER, VoteGot): (vote_phase.take_vote, {P.SCATTER, P.ADOPT}),
    (P.SCATTER, StandLost): (offer_phase.stand_lost, {P.WATCH}),
    (P.SCATTER, CertificateGot): (vote_phase.follow, {P.SCATTER, *_MOVE}),
    (P.SCATTER, StateHere): (vote_phase.state_here, {P.SCATTER, P.ADOPT}),
    (P.REDUCE, Tick): (reduce_phases.reduce_overdue, {P.REDUCE, P.FETCH, P.READY}),
    (P.REDUCE, ReadyGot): (reduce_phases.ready_in_reduce, {P.REDUCE, P.READY}),
    (P.REDUCE, PlanGot): (offer_phase.plan_missed, {P.REDUCE}),
    (P.REDUCE, WithdrawalGot): (reduce_phases.withdrawn_in_reduce, {P.REDUCE, P.READY}),
    (P.REDUCE, LiveChanged): (offer_phase.live_changed, {P.REDUCE}),
    (P.REDUCE, PeerGone): (reduce_phases.gone_in_reduce, {P.REDUCE, P.READY}),
    (P.REDUCE, CutGot): (reduce_phases.cut_got, {P.REDUCE, P.WATCH}),
    (P.REDUCE, ResultGot): (reduce_phases.result_got, {P.REDUCE}),
    (P.REDUCE, Computed): (vote_phase.cast, {P.REDUCE, P.VOTE, *_MOVE}),
    (P.REDUCE, VoteGot): (vote_phase.take_vote, {P.REDUCE}),
    (P.REDUCE, CertificateGot): (vote_phase.follow, {P.REDUCE, P.FETCH}),
    (P.REDUCE, StateHere): (vote_phase.state_here, {P.REDUCE, P.ADOPT}),
    (P.VOTE, Tick): (vote_overdue, {P.VOTE, *_VIEW}),
    (P.VOTE, ReadyGot): (offer_phase.ready_got, {P.VOTE, P.READY}),
    (P.VOTE, LiveChanged): (offer_phase.live_changed, {P.VOTE}),
    (P.VOTE, PeerGone): (vote_phase.gone_in_vote, {P.VOTE, *_VIEW}),
    (P.VOTE, PlanGot): (offer_phase.plan_missed, {P.VOTE}),
    (P.VOTE, WithdrawalGot): (vote_phase.withdrawn_in_vote, {P.VOTE, *_VIEW}),
    (P.VOTE, CutGot): (reduce_phases.serve, {P.VOTE}),
    (P.VOTE, VoteGot): (vote_phase.take_vote, {P.VOTE, P.ADOPT, *_VIEW}),
    (P.VOTE, CertificateGot): (vote_phase.follow, {P.VOTE, *_MOVE}),
    (P.VOTE, StateHere): (vote_phase.state_here, {P.VOTE, P.ADOPT}),
    (P.WATCH, Tick): (offer_phase.watch_overdue, _VIEW),
    (P.WATCH, ReadyGot): (offer_phase.ready_got, {P.WATCH}),
    (P.WATCH, LiveChanged): (offer_phase.live_changed, {P.WATCH}),
    (P.WATCH, PeerGone): (note_gone, {P.WATCH}),
    (P.WATCH, PlanGot): (offer_phase.plan_missed, {P.WATCH}),
    (P.WATCH, WithdrawalGot): (withdrawal_got, {P.WATCH}),
    (P.WATCH, CertificateGot): (vote_phase.follow, {P.WATCH, *_MOVE}),
    (P.WATCH, StateHere): (vote_phase.state_here, {P.WATCH, P.ADOPT}),
    (P.TRAIN, ForkGot): (merge_phase.fork_got, {P.MERGE}),
    (P.READY, ForkGot): (merge_phase.fork_got, {P.READY, P.MERGE}),
    (P.WATCH, ForkGot): (merge_phase.fork_got, {P.WATCH, P.MERGE}),
    (P.MERGE, MergePrepared): (merge_phase.merge_prepared, {P.READY}),
    (P.MERGE, Tick): (merge_phase.merge_overdue, {P.TRAIN}),
    (P.MERGE, StateComing): (merge_phase.state_coming, {P.MERGE}),
    (P.MERGE, StateHere): (merge_phase.state_here, {P.MERGE}),
    (P.MERGE, StateLost): (merge_phase.state_lost, {P.MERGE, P.TRAIN}),
    (P.MERGE, LiveChanged): (offer_phase.live_changed, {P.MERGE}),
    (P.MERGE, PeerGone): (note_gone, {P.MERGE}),
    (P.MERGE, PlanGot): (offer_phase.plan_missed, {P.MERGE}),
    (P.MERGE, CertificateGot): (vote_phase.follow, {P.MERGE, P.FETCH}),
    (P.ADOPT, Adopted): (adopted, {P.TRAIN}),
    (P.ADOPT, StateLost): (vote_phase.state_lost, {P.ADOPT, P.TRAIN}),
    (P.FETCH, LiveChanged): (vote_phase.live_in_fetch, {P.FETCH}),
    (P.FETCH, StateComing): (vote_phase.state_coming, {P.FETCH}),
    (P.FETCH, StateHere): (vote_phase.state_here, {P.FETCH, P.ADOPT}),
    (P.FETCH, StateLost): (vote_phase.state_lost, {P.FETCH, P.TRAIN}),
    (P.FETCH, PlanGot): (offer_phase.plan_missed, {P.FETCH}),
    (P.FETCH, Tick): (vote_phase.fetch_overdue, {P.TRAIN}),
    (P.FETCH, CertificateGot): (vote_phase.retarget, {P.FETCH}),
}


def step(state: State, event: Event, now: float) -> tuple[State, list[Action]]:
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
