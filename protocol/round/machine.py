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

from protocol.certificate import Tip
from protocol.digest import Digest
from protocol.errors import InvariantBroken
from protocol.identity import PeerId
from protocol.round import gathering, merging, reducing, voting
from protocol.round.phases import (
    Action,
    Adopted,
    CertificateGot,
    Computed,
    CutGot,
    ForkGot,
    Happening,
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
        return voting.inquire(state, now)
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

TABLE: Mapping[tuple[Phase, type[Happening]], tuple[Handler, set[Phase]]] = {
    (P.TRAIN, Tick): (gathering.end_training, {P.OFFER}),
    (P.TRAIN, RoundEnded): (gathering.end_training, {P.OFFER}),
    (P.TRAIN, ReadyGot): (gathering.ready_got, {P.TRAIN, P.OFFER}),
    (P.TRAIN, LiveChanged): (gathering.live_changed, {P.TRAIN}),
    (P.TRAIN, PeerGone): (note_gone, {P.TRAIN}),
    (P.TRAIN, PlanGot): (gathering.plan_missed, {P.TRAIN}),
    (P.TRAIN, WithdrawalGot): (withdrawal_got, {P.TRAIN}),
    (P.TRAIN, CertificateGot): (voting.follow, {P.TRAIN, *_MOVE}),
    (P.TRAIN, StateHere): (voting.state_here, {P.TRAIN, P.ADOPT}),
    (P.OFFER, OfferMade): (gathering.offer_made, _VIEW),
    (P.OFFER, ReadyGot): (gathering.ready_got, {P.OFFER}),
    (P.OFFER, LiveChanged): (gathering.live_changed, {P.OFFER}),
    (P.OFFER, PeerGone): (note_gone, {P.OFFER}),
    (P.OFFER, PlanGot): (gathering.plan_missed, {P.OFFER}),
    (P.OFFER, WithdrawalGot): (withdrawal_got, {P.OFFER}),
    (P.OFFER, CertificateGot): (voting.follow, {P.OFFER, *_MOVE}),
    (P.OFFER, StateHere): (voting.state_here, {P.OFFER, P.ADOPT}),
    (P.READY, Tick): (gathering.ready_overdue, _VIEW),
    (P.READY, ReadyGot): (gathering.ready_got, {P.READY}),
    (P.READY, LiveChanged): (gathering.live_changed, {P.READY}),
    (P.READY, PeerGone): (gathering.gone_in_ready, _VIEW),
    (P.READY, PlanGot): (gathering.plan_got, {P.READY, P.SCATTER, P.WATCH, P.TRAIN}),
    (P.READY, WithdrawalGot): (withdrawal_got, {P.READY}),
    (P.READY, VoteGot): (voting.take_vote, {P.READY}),
    (P.READY, StandLost): (gathering.stand_lost, {P.WATCH}),
    (P.READY, CertificateGot): (voting.follow, {P.READY, *_MOVE}),
    (P.READY, StateHere): (voting.state_here, {P.READY, P.ADOPT}),
    (P.SCATTER, Tick): (reducing.scatter_overdue, {P.SCATTER, P.FETCH, *_VIEW}),
    (P.SCATTER, ReadyGot): (reducing.ready_in_scatter, {P.SCATTER, *_VIEW}),
    (P.SCATTER, PlanGot): (gathering.plan_missed, {P.SCATTER}),
    (P.SCATTER, WithdrawalGot): (reducing.withdrawn_in_scatter, {P.SCATTER, *_VIEW}),
    (P.SCATTER, LiveChanged): (gathering.live_changed, {P.SCATTER}),
    (P.SCATTER, PeerGone): (reducing.gone_in_scatter, {P.SCATTER, *_VIEW}),
    (P.SCATTER, HeldHere): (reducing.held_here, {P.SCATTER}),
    (P.SCATTER, HeldGot): (reducing.held_got, {P.SCATTER, P.READY}),
    (P.SCATTER, CutGot): (reducing.cut_got, {P.SCATTER, P.REDUCE, P.VOTE, P.WATCH, *_MOVE}),
    (P.SCATTER, VoteGot): (voting.take_vote, {P.SCATTER}),
    (P.SCATTER, StandLost): (gathering.stand_lost, {P.WATCH}),
    (P.SCATTER, CertificateGot): (voting.follow, {P.SCATTER, *_MOVE}),
    (P.SCATTER, StateHere): (voting.state_here, {P.SCATTER, P.ADOPT}),
    (P.REDUCE, Tick): (reducing.reduce_overdue, {P.REDUCE, P.FETCH, P.READY}),
    (P.REDUCE, ReadyGot): (reducing.ready_in_reduce, {P.REDUCE, P.READY}),
    (P.REDUCE, PlanGot): (gathering.plan_missed, {P.REDUCE}),
    (P.REDUCE, WithdrawalGot): (reducing.withdrawn_in_reduce, {P.REDUCE, P.READY}),
    (P.REDUCE, LiveChanged): (gathering.live_changed, {P.REDUCE}),
    (P.REDUCE, PeerGone): (reducing.gone_in_reduce, {P.REDUCE, P.READY}),
    (P.REDUCE, CutGot): (reducing.cut_got, {P.REDUCE, P.WATCH}),
    (P.REDUCE, ResultGot): (reducing.result_got, {P.REDUCE}),
    (P.REDUCE, Computed): (voting.cast, {P.REDUCE, P.VOTE, *_MOVE}),
    (P.REDUCE, VoteGot): (voting.take_vote, {P.REDUCE}),
    (P.REDUCE, CertificateGot): (voting.follow, {P.REDUCE, P.FETCH}),
    (P.REDUCE, StateHere): (voting.state_here, {P.REDUCE, P.ADOPT}),
    (P.VOTE, Tick): (vote_overdue, {P.VOTE, *_VIEW}),
    (P.VOTE, ReadyGot): (gathering.ready_got, {P.VOTE, P.READY}),
    (P.VOTE, LiveChanged): (gathering.live_changed, {P.VOTE}),
    (P.VOTE, PeerGone): (voting.gone_in_vote, {P.VOTE, *_VIEW}),
    (P.VOTE, PlanGot): (gathering.plan_missed, {P.VOTE}),
    (P.VOTE, WithdrawalGot): (voting.withdrawn_in_vote, {P.VOTE, *_VIEW}),
    (P.VOTE, CutGot): (reducing.serve, {P.VOTE}),
    (P.VOTE, VoteGot): (voting.take_vote, {P.VOTE, *_VIEW}),
    (P.VOTE, CertificateGot): (voting.follow, {P.VOTE, *_MOVE}),
    (P.VOTE, StateHere): (voting.state_here, {P.VOTE, P.ADOPT}),
    (P.WATCH, Tick): (gathering.watch_overdue, _VIEW),
    (P.WATCH, ReadyGot): (gathering.ready_got, {P.WATCH}),
    (P.WATCH, LiveChanged): (gathering.live_changed, {P.WATCH}),
    (P.WATCH, PeerGone): (note_gone, {P.WATCH}),
    (P.WATCH, PlanGot): (gathering.plan_missed, {P.WATCH}),
    (P.WATCH, WithdrawalGot): (withdrawal_got, {P.WATCH}),
    (P.WATCH, CertificateGot): (voting.follow, {P.WATCH, *_MOVE}),
    (P.WATCH, StateHere): (voting.state_here, {P.WATCH, P.ADOPT}),
    (P.TRAIN, ForkGot): (merging.fork_got, {P.MERGE}),
    (P.READY, ForkGot): (merging.fork_got, {P.READY, P.MERGE}),
    (P.WATCH, ForkGot): (merging.fork_got, {P.WATCH, P.MERGE}),
    (P.MERGE, MergePrepared): (merging.merge_prepared, {P.READY}),
    (P.MERGE, Tick): (merging.merge_overdue, {P.TRAIN}),
    (P.MERGE, StateComing): (merging.state_coming, {P.MERGE}),
    (P.MERGE, StateHere): (merging.state_here, {P.MERGE}),
    (P.MERGE, StateLost): (merging.state_lost, {P.MERGE, P.TRAIN}),
    (P.MERGE, LiveChanged): (gathering.live_changed, {P.MERGE}),
    (P.MERGE, PeerGone): (note_gone, {P.MERGE}),
    (P.MERGE, PlanGot): (gathering.plan_missed, {P.MERGE}),
    (P.MERGE, CertificateGot): (voting.follow, {P.MERGE, P.FETCH}),
    (P.ADOPT, Adopted): (adopted, {P.TRAIN}),
    (P.FETCH, LiveChanged): (voting.live_in_fetch, {P.FETCH}),
    (P.FETCH, StateComing): (voting.state_coming, {P.FETCH}),
    (P.FETCH, StateHere): (voting.state_here, {P.FETCH, P.ADOPT}),
    (P.FETCH, StateLost): (voting.state_lost, {P.FETCH, P.TRAIN}),
    (P.FETCH, PlanGot): (gathering.plan_missed, {P.FETCH}),
    (P.FETCH, Tick): (voting.fetch_overdue, {P.TRAIN}),
    (P.FETCH, CertificateGot): (voting.retarget, {P.FETCH}),
}


def step(state: State, event: Happening, now: float) -> tuple[State, list[Action]]:
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
