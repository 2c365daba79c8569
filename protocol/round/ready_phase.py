"""READY and WATCH: waiting for a plan, checking it, and following it or not."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.errors import PeerFault
from protocol.identity import short
from protocol.journal import Planned
from protocol.membership.admission import check_members
from protocol.membership.invited import invitations_in
from protocol.membership.plan_check import check_claims
from protocol.messages.base import MAX_REASON_CHARS
from protocol.messages.round import TrustPlan, Withdrawal
from protocol.planning.paced_plan import false_memory
from protocol.planning.plan import OpenPlan
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round import leader_inclusion, leader_plan
from protocol.round.offer_phase import offer_fault
from protocol.round.phase import Phase
from protocol.round.quorum import missing_quorum
from protocol.round.state import RoundState
from protocol.round.timeouts import REPORT_SHARE, scatter_s
from protocol.round.transitions import Transition, enter, train_again, train_alone, watch
from protocol.round.views import FOLLOWER_TIMEOUTS, pass_view

# The withdrawn plans that a node remembers: a leader makes one plan in a view, and more than one
# leader is rare.
DECLINED_KEPT = 8


def withdraw(state: RoundState, plan: OpenPlan, reason: str) -> Transition:
    """Tell the members of a plan, once, that this node takes no part in it.

    Without this, they wait for this node's part as long as a scatter may take.
    """
    if state.context.me not in plan.index or plan.digest in state.declined:
        return state, []
    state = replace(state, declined=(*state.declined, plan.digest)[-DECLINED_KEPT:])
    others = tuple(peer for peer in plan.members if peer != state.context.me)
    return state, [
        a.Send(to=others, message=Withdrawal(plan=plan.digest, reason=reason[:MAX_REASON_CHARS]))
    ]


def plan_missed(state: RoundState, event: e.PlanReceived, now: float) -> Transition:
    """Withdraw from a plan that this node does not wait for.

    The current plan may arrive twice; the second copy needs no answer.
    """
    plan = event.plan
    if state.plan is not None and plan.digest == state.plan.digest:
        return state, []
    return withdraw(
        state, plan, f"in {state.phase.value} of view {state.view} of round {state.number}"
    )


def plan_received(state: RoundState, event: e.PlanReceived, now: float) -> Transition:
    """Follow the plan of this view's leader, if this node is in it and it fits."""
    plan = event.plan
    if plan.plan.parent != state.parent or plan.plan.view != state.view:
        return plan_missed(state, event, now)
    if plan.leader not in state.offered_to:
        detail = f"a plan for view {state.view}, which it does not lead"
        return state, [a.Refuse(peer=plan.leader, reason="not_leader", detail=detail)]
    if (why := false_memory(plan.plan, state.group_history, state.left_round_s)) is not None:
        detail = f"a plan that {why}"
        return state, [a.Refuse(peer=plan.leader, reason="bad_plan", detail=detail)]
    if (why := _false_claims(state, plan)) is not None:
        return state, [a.Refuse(peer=plan.leader, reason="bad_plan", detail=why)]
    me = plan.index.get(state.context.me)
    if me is None:
        return watch(
            state,
            now,
            f"too late for the plan of view {state.view}; the work counts in the next round",
        )
    if state.offer is None or plan.offers[me] != replace(state.offer, view=state.view):
        state, telling = withdraw(state, plan, "the plan holds an outdated offer")
        detail = "a plan with an offer that this node did not make"
        return state, [*telling, a.Refuse(peer=plan.leader, reason="bad_plan", detail=detail)]
    for peer, offer in zip(plan.members, plan.offers, strict=True):
        if (fault := offer_fault(state, peer, offer)) is not None:
            detail = f"a plan in which {fault[1]}"
            return state, [a.Refuse(peer=plan.leader, reason="bad_plan", detail=detail)]
    if state.merge is None and not any(offer.samples for offer in plan.offers):
        return train_again(
            state,
            now,
            f"none of the {len(plan.members)} members of view {state.view} has anything to offer",
        )
    if why := missing_quorum(state, plan.members, now):
        state, telling = withdraw(state, plan, why)
        state, actions = train_alone(state, now, why)
        return state, [*telling, *actions]
    return _follow(state, event, now)


def _false_claims(state: RoundState, plan: OpenPlan) -> str | None:
    """Why what a plan lists beside its offers is false; None where it is true."""
    if state.record is None or not isinstance(plan.plan, TrustPlan):
        return None
    parents = [state.tip, state.merge.other] if state.merge else [state.tip]
    parents.sort(key=lambda tip: tip.record is not state.record)
    run, manifest = state.context.run, state.context.manifest
    try:
        invited = invitations_in(plan.members, plan.offers, run, manifest)
        check_members(state.record, manifest, plan.members, invited)
        check_claims(
            plan.plan,
            plan.members,
            [tip.record for tip in parents if tip.record is not None],
            [tip.outcome for tip in parents],
            run,
            manifest,
        )
    except PeerFault as fault:
        return str(fault)
    return None


def _follow(state: RoundState, event: e.PlanReceived, now: float) -> Transition:
    """Scatter by a plan that was checked; a merge has nothing to scatter."""
    plan = event.plan
    leads = plan.leader == state.context.me
    share = 1.0 if leads else REPORT_SHARE
    state, actions = enter(
        state,
        Phase.SCATTER,
        now,
        f"plan of view {state.view} by {short(plan.leader)}: {plan.plan.reason}",
        deadline=now + scatter_s(plan, state.context.manifest.round) * share,
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
    actions += [
        a.RecordEvent(event=planned),
        a.PersistView(parent=state.parent, view=state.view),
    ]
    if state.merge is None:
        return state, [*actions, a.Scatter(plan=plan, offer=state.contribution)]
    return state, [*actions, *(leader_inclusion.include_for_merge(state) if leads else [])]


def view_not_persisted(state: RoundState, event: e.ViewNotPersisted, now: float) -> Transition:
    """Take no part in the view.

    After a restart, the node might forget that it scattered and voted, and do so again.
    """
    state, telling = (
        withdraw(state, state.plan, event.reason) if state.plan is not None else (state, [])
    )
    state, actions = watch(
        state,
        now,
        f"takes no part in view {state.view}, because it cannot record the view: {event.reason}",
    )
    return state, [*telling, *actions]


def ready_overdue(state: RoundState, event: e.DeadlinePassed, now: float) -> Transition:
    """Plan with the nodes that are ready, train on alone, or pass the view."""
    others = state.live - state.lost
    rules = state.context.manifest.round
    training = event.training & state.awaited - state.readies.keys()
    if 2 * len(training) > len(state.awaited) and now < state.entered + state.round_s:
        # This node is early: most others still train, so no leader can make a plan. In a later view
        # they would not find this node.
        return replace(state, deadline=now + rules.ready_s), []
    if why := missing_quorum(state, others, now):
        return train_alone(state, now, why)
    if state.leads:
        return leader_plan.try_plan(state, now, final=True)
    if not others:
        return train_alone(state, now)
    timeout_s = FOLLOWER_TIMEOUTS * rules.ready_s
    return pass_view(state, now, f"no plan from {short(state.leader)} within {timeout_s:g} s")


def watch_overdue(state: RoundState, event: e.DeadlinePassed, now: float) -> Transition:
    """Pass the view when the others' certificate did not arrive."""
    return pass_view(
        state, now, f"no certificate from the members that went on in view {state.view}"
    )
