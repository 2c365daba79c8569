"""From the end of training to a plan: the offer, the leader's wait, whose plan is followed."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.chain.account_binding import wallet_of_offer
from protocol.errors import PeerFault
from protocol.identity import PeerId, short
from protocol.journal import Planned
from protocol.messages.base import MAX_REASON_CHARS
from protocol.messages.offer import Ready
from protocol.messages.round import Withdrawal
from protocol.planning.plan import OpenPlan
from protocol.round import leader_decisions
from protocol.round.actions import MakeOffer, PersistView, RecordEvent, Refuse, Scatter, Send
from protocol.round.events import (
    DeadlinePassed,
    Event,
    LivePeersChanged,
    OfferMade,
    PeerLost,
    PlanReceived,
    ReadyReceived,
    ViewNotPersisted,
)
from protocol.round.phase import Phase
from protocol.round.state import RoundState
from protocol.round.timeouts import scatter_s
from protocol.round.views import (
    FOLLOWER_PATIENCE,
    Step,
    begin_view,
    enter,
    follow_order,
    go_alone,
    keep_ready,
    left_out,
    note_lost,
    pass_view,
    resend_plan,
    train_again,
)
from protocol.run.admission import check_admission

# Plans that this node said it takes no part in: one leader makes one a view, and more than one
# leader is rare.
DECLINED_KEPT = 8
# At this share of the scatter's time a reducer tells the leader what it has, whole or not.
HALF_TIME = 0.5


def end_training(state: RoundState, event: Event, now: float) -> Step:
    state, actions = enter(
        state,
        Phase.OFFER,
        now,
        f"the round's local training is over; making the offer for round {state.number}",
    )
    return state, [*actions, MakeOffer()]


def offer_made(state: RoundState, event: OfferMade, now: float) -> Step:
    # Our own offer to this view from before we went on training alone is over: a plan with it would
    # be our first of two in one view.
    others = {peer: entry for peer, entry in state.readies.items() if peer != state.context.me}
    state = replace(state, offer=event.ready, contribution=event.offer, readies=others)
    if len(state.live - state.lost) + 1 < state.context.manifest.group.min_peers:
        return go_alone(state, now)
    return begin_view(
        state, now, state.view, f"{event.ready.samples} samples offered as seq {event.ready.seq}"
    )


def live_changed(state: RoundState, event: LivePeersChanged, now: float) -> Step:
    """Who is alive, as beacons say.

    Whoever was lost and is heard again is lost no more: else two nodes could miss each other for
    good.
    """
    state = replace(
        state, live=event.live, avoided=event.avoided, lost=state.lost - (event.live - state.live)
    )
    state, actions = follow_order(state)
    state, planning = leader_decisions.try_plan(state, now, final=False)
    return state, [*actions, *planning]


def lost_in_ready(state: RoundState, event: PeerLost, now: float) -> Step:
    state, _ = note_lost(state, event, now)
    if event.peer == state.leader:
        return pass_view(
            state, now, f"the leader of view {state.view}, {short(event.peer)}, was lost"
        )
    return leader_decisions.try_plan(state, now, final=False)


def _wrong_offer(state: RoundState, peer: PeerId, ready: Ready) -> tuple[str, str] | None:
    """Why an offer to this round can be in no certificate, as (reason, detail).

    One such offer in a plan would spoil the round for all.
    """
    most = state.context.manifest.limits.max_samples
    if ready.samples > most:
        return "malformed", f"{short(peer)} offers {ready.samples} samples, the run allows {most}"
    if bool(ready.samples) != bool(ready.seq) or (state.merge is not None and ready.samples):
        return "malformed", f"{short(peer)} offers seq {ready.seq} with {ready.samples} samples"
    try:
        wallet_of_offer(state.context.manifest, peer, ready)
        check_admission(state.context.manifest, peer, ready)
    except PeerFault as fault:
        return fault.reason, str(fault)
    if ready.seq and ready.seq <= state.tip.last_seq.get(peer, 0):
        return "duplicate", f"{short(peer)} offers seq {ready.seq}, which was certified before"
    return None


def ready_received(state: RoundState, event: ReadyReceived, now: float) -> Step:
    """Keep an offer for this round; go along when half of the others are ahead of us."""
    view, peer = event.ready.view, event.signed.peer
    if (
        event.ready.parent != state.parent
        or event.ready.number != state.number
        or view < state.view
    ):
        return state, []
    if (wrong := _wrong_offer(state, peer, event.ready)) is not None:
        return state, [Refuse(peer=peer, reason=wrong[0], detail=wrong[1])]
    state = keep_ready(state, peer, (event.signed, event.ready))
    others = state.live - state.lost
    ahead = {
        p: r.view
        for p, (_, r) in state.readies.items()
        if p in others and (r.view > state.view or state.phase is Phase.TRAIN)
    }
    many = bool(ahead) and 2 * len(ahead) >= len(others)
    if state.phase is Phase.TRAIN:
        return end_training(state, event, now) if many else (state, [])
    if state.phase is Phase.READY:
        if many:
            return begin_view(
                state,
                now,
                min(ahead.values()),
                f"{len(ahead)} of {len(others)} others are in a later view",
            )
        return leader_decisions.try_plan(state, now, final=False)
    if state.decided:
        return state, []
    if (
        state.phase in {Phase.SCATTER, Phase.REDUCE, Phase.VOTE}
        and state.plan is not None
        and peer == state.plan.leader
        and view > state.view
    ):
        return pass_view(state, now, f"{short(peer)}, which led view {state.view}, gave it up")
    if state.phase in {Phase.SCATTER, Phase.REDUCE} and view > state.view and state.majority_lost:
        # Without this a leader carries out a plan that nobody else does any more, while they wait
        # for it in a view that they leave in turn.
        return pass_view(
            state,
            now,
            f"{short(peer)} is in view {view}, and the majority of view {state.view} with it",
        )
    if (
        state.leads
        and state.plan is not None
        and peer not in state.plan.members
        and view == state.view
    ):
        return state, resend_plan(state, peer)
    return state, []


def withdraw(state: RoundState, plan: OpenPlan, reason: str) -> Step:
    """Tell the members of a plan with us that we take no part in it, once.

    Without this they wait for our part as long as a scatter may take.
    """
    if state.context.me not in plan.index or plan.digest in state.declined:
        return state, []
    state = replace(state, declined=(*state.declined, plan.digest)[-DECLINED_KEPT:])
    others = tuple(peer for peer in plan.members if peer != state.context.me)
    return state, [
        Send(to=others, message=Withdrawal(plan=plan.digest, reason=reason[:MAX_REASON_CHARS]))
    ]


def plan_missed(state: RoundState, event: PlanReceived, now: float) -> Step:
    """A plan that comes where this node does not wait for one.

    It may come twice: then there is nothing to say.
    """
    plan = event.plan
    if state.plan is not None and plan.digest == state.plan.digest:
        return state, []
    return withdraw(
        state, plan, f"in {state.phase.value} of view {state.view} of round {state.number}"
    )


def plan_received(state: RoundState, event: PlanReceived, now: float) -> Step:
    plan = event.plan
    if plan.plan.parent != state.parent or plan.plan.view != state.view:
        return plan_missed(state, event, now)
    if plan.leader not in state.offered_to:
        return state, [
            Refuse(
                peer=plan.leader,
                reason="not_leader",
                detail=f"a plan for view {state.view}, which it does not lead",
            )
        ]
    if plan.plan.before != state.group_history:
        return state, [
            Refuse(
                peer=plan.leader,
                reason="bad_plan",
                detail="a plan that remembers other rows than its parent left",
            )
        ]
    me = plan.index.get(state.context.me)
    if me is None:
        return left_out(
            state, now, f"too late for the plan of view {state.view}; the work waits a round"
        )
    if state.offer is None or plan.offers[me] != replace(state.offer, view=state.view):
        state, telling = withdraw(state, plan, "it holds an offer that is over")
        return state, [
            *telling,
            Refuse(
                peer=plan.leader, reason="bad_plan", detail="a plan with an offer we did not make"
            ),
        ]
    for peer, offer in zip(plan.members, plan.offers, strict=True):
        if (wrong := _wrong_offer(state, peer, offer)) is not None:
            return state, [
                Refuse(peer=plan.leader, reason="bad_plan", detail=f"a plan in which {wrong[1]}")
            ]
    if state.merge is None and not any(offer.samples for offer in plan.offers):
        return train_again(
            state,
            now,
            f"none of the {len(plan.members)} members of view {state.view} has anything to offer",
        )
    rules = state.context.manifest.round
    leads = plan.leader == state.context.me
    state, actions = enter(
        state,
        Phase.SCATTER,
        now,
        f"plan of view {state.view} by {short(plan.leader)}: {plan.plan.reason}",
        deadline=now + scatter_s(plan, rules) * (1.0 if leads else HALF_TIME),
        plan=plan,
        plan_signed=event.signed,
        overdue=False,
    )
    planned = Planned(
        number=state.number,
        view=state.view,
        leader=plan.leader,
        members=plan.members,
        reason=plan.plan.reason,
    )
    actions += [RecordEvent(event=planned), PersistView(parent=state.parent, view=state.view)]
    if state.merge is not None:
        return state, [*actions, *(leader_decisions.include_all_for_merge(state) if leads else [])]
    return state, [*actions, Scatter(plan=plan, offer=state.contribution)]


def view_not_persisted(state: RoundState, event: ViewNotPersisted, now: float) -> Step:
    """A node that might forget what it scattered and voted for, and do it again, does neither."""
    state, telling = (
        withdraw(state, state.plan, event.reason) if state.plan is not None else (state, [])
    )
    state, actions = left_out(
        state,
        now,
        f"taking no part in view {state.view}, since that cannot be written down: {event.reason}",
    )
    return state, [*telling, *actions]


def ready_overdue(state: RoundState, event: DeadlinePassed, now: float) -> Step:
    others = state.live - state.lost
    rules = state.context.manifest.round
    training = event.training & others - state.readies.keys()
    if 2 * len(training) > len(others) and now < state.entered + rules.seconds:
        # Most others still train, so that nobody can make a plan: this node is early. In a later
        # view they would not find it.
        return replace(state, deadline=now + rules.ready_s), []
    if state.leads:
        return leader_decisions.try_plan(state, now, final=True)
    if not others:
        return go_alone(state, now)
    return pass_view(
        state,
        now,
        f"no plan from {short(state.leader)} within {FOLLOWER_PATIENCE * state.context.manifest.round.ready_s:g} s",
    )


def watch_overdue(state: RoundState, event: DeadlinePassed, now: float) -> Step:
    return pass_view(
        state, now, f"no certificate came from those who went on without us in view {state.view}"
    )
