"""Carrying out a plan: what is held, the cut, the results, and what a lost member means for each."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.errors import PeerFault
from protocol.identity import PeerId, short
from protocol.messages.round import HoldReport
from protocol.round import leader_decisions, offer_phase, vote_phase
from protocol.round.actions import Action, Reduce, Refuse, Send, ServeInclusion
from protocol.round.events import (
    ContributionsReceived,
    DeadlinePassed,
    HoldReportReceived,
    InclusionReceived,
    PeerLost,
    ReadyReceived,
    ResultReceived,
    WithdrawalReceived,
)
from protocol.round.phase import Phase
from protocol.round.state import RoundState
from protocol.round.timeouts import gather_s, scatter_s
from protocol.round.views import (
    FOLLOWER_PATIENCE,
    Step,
    enter,
    left_out,
    note_lost,
    note_withdrawal,
    pass_view,
)
from protocol.rules.registry import rules_of

# At this share of the scatter's time a reducer tells the leader what it has, whole or not.
HALF_TIME = 0.5


def lost_in_scatter(state: RoundState, event: PeerLost, now: float) -> Step:
    state, _ = note_lost(state, event, now)
    return _scatter_without(state, now, event.peer, "was lost")


def withdrawn_in_scatter(state: RoundState, event: WithdrawalReceived, now: float) -> Step:
    """A member takes no part: what it would have sent is not waited for."""
    state = note_withdrawal(state, event)
    return (
        _scatter_without(state, now, event.peer, "withdrew")
        if event.peer in state.absent
        else (state, [])
    )


def ready_in_scatter(state: RoundState, event: ReadyReceived, now: float) -> Step:
    """An offer to a later view: its sender has left this one."""
    known = state.in_later_view
    state, actions = offer_phase.ready_received(state, event, now)
    if state.phase is not Phase.SCATTER or state.in_later_view == known:
        return state, actions
    state, more = _scatter_without(
        state, now, event.signed.peer, f"went on to view {event.ready.view}"
    )
    return state, [*actions, *more]


def _scatter_without(state: RoundState, now: float, peer: PeerId, how: str) -> Step:
    plan = state.plan
    if state.decided:
        return state, []
    if plan is not None and (peer == plan.leader or state.majority_lost):
        return pass_view(
            state,
            now,
            f"{short(peer)} {how} in scatter, {'its leader' if peer == plan.leader else 'and the majority'}",
        )
    if state.merge is not None:
        return state, []
    state, telling = _report_held(state)
    state, cutting = leader_decisions.try_inclusion(state, now, final=False)
    return state, [*telling, *cutting]


def lost_in_reduce(state: RoundState, event: PeerLost, now: float) -> Step:
    state, _ = note_lost(state, event, now)
    return _reduce_without(state, now, event.peer, "was lost")


def withdrawn_in_reduce(state: RoundState, event: WithdrawalReceived, now: float) -> Step:
    """A member takes no part: what it owes is somebody else's to do."""
    state = note_withdrawal(state, event)
    return (
        _reduce_without(state, now, event.peer, "withdrew")
        if event.peer in state.absent
        else (state, [])
    )


def ready_in_reduce(state: RoundState, event: ReadyReceived, now: float) -> Step:
    """An offer to a later view: its sender has left this one."""
    known = state.in_later_view
    state, actions = offer_phase.ready_received(state, event, now)
    if state.phase is not Phase.REDUCE or state.in_later_view == known:
        return state, actions
    state, more = _reduce_without(
        state, now, event.signed.peer, f"went on to view {event.ready.view}"
    )
    return state, [*actions, *more]


def _reduce_without(state: RoundState, now: float, peer: PeerId, how: str) -> Step:
    if state.decided:
        return state, []
    if state.majority_lost:
        return pass_view(state, now, f"{short(peer)} {how} in reduce, and the majority with it")
    if leader_decisions.cannot_include_again(state):
        return pass_view(
            state,
            now,
            f"{short(peer)} {how} in reduce: a slice is missing, and the leader that could name a substitute",
        )
    return leader_decisions.include_again(state, now, final=False)


def _report_held(state: RoundState) -> Step:
    """Tell the leader what we hold: once it is all that living members of our row offered, and at
    every change from then on.
    """
    plan = state.plan
    assert plan is not None
    row = plan.layout.group_members(plan.index[state.context.me])
    absent = state.absent
    wanted = {i for i in row if plan.offers[i].samples and plan.members[i] not in absent}
    if not (state.hold_reported or wanted <= state.held_contributors):
        return state, []
    held = HoldReport(plan=plan.digest, contributors=tuple(sorted(state.held_contributors)))
    return replace(state, hold_reported=True), [Send(to=(plan.leader,), message=held)]


def contributions_received(state: RoundState, event: ContributionsReceived, now: float) -> Step:
    if state.plan is None or event.plan != state.plan.digest:
        return state, []  # of the plan before
    return _report_held(replace(state, held_contributors=event.contributors))


def hold_report_received(state: RoundState, event: HoldReportReceived, now: float) -> Step:
    plan = state.plan
    if (
        plan is None
        or event.report.plan != plan.digest
        or event.peer not in plan.members
        or not state.leads
        or state.decided
    ):
        return state, []
    held = {**state.leader_state.hold_reports, event.peer: frozenset(event.report.contributors)}
    return leader_decisions.try_inclusion(
        replace(state, leader_state=replace(state.leader_state, hold_reports=held)),
        now,
        final=False,
    )


def scatter_overdue(state: RoundState, event: DeadlinePassed, now: float) -> Step:
    if state.target is not None:
        return vote_phase.fetch(state, state.target, now)
    if state.merge is not None:
        return pass_view(state, now, f"no cut for the merge from {short(state.leader)}")
    if state.leads:
        return leader_decisions.try_inclusion(state, now, final=True)
    rules = state.context.manifest.round
    allowed = scatter_s(state.plan, rules) if state.plan is not None else rules.scatter_s
    rest = allowed * (1.0 - HALF_TIME) + FOLLOWER_PATIENCE * rules.ready_s
    if not state.overdue:
        state, actions = (
            (state, []) if state.hold_reported else _report_held(replace(state, hold_reported=True))
        )
        return replace(state, overdue=True, deadline=now + rest), actions
    return pass_view(
        state, now, f"no cut from {short(state.leader)} within {allowed * HALF_TIME + rest:g} s"
    )


def inclusion_received(state: RoundState, event: InclusionReceived, now: float) -> Step:
    plan, inclusion = state.plan, event.inclusion
    if (
        plan is None
        or inclusion.plan != plan.digest
        or (state.decided and state.inclusion is not None)
    ):
        return state, []
    wanted, refusals = _check(state, event)
    if not wanted:
        return state, refusals
    if plan.index[state.context.me] not in inclusion.present:
        if state.target is not None:
            return vote_phase.fetch(state, state.target, now)
        return left_out(
            state,
            now,
            f"left out of cut {inclusion.number}: {short(plan.leader)} took this node for lost, or it was too slow",
        )
    if state.merge is not None:
        return vote_phase.cast_merge(
            replace(state, inclusion=inclusion, inclusion_signed=event.signed), now
        )
    patience = gather_s(plan, state.context.manifest.round) * (
        1.0 if state.leads else FOLLOWER_PATIENCE
    )
    state, actions = enter(
        state,
        Phase.REDUCE,
        now,
        inclusion.reason,
        deadline=now + patience,
        inclusion=inclusion,
        inclusion_signed=event.signed,
        results=frozenset(),
        spare=None,
    )
    return state, [*actions, Reduce(plan=plan, inclusion=inclusion, digest=event.signed.digest)]


def serve(state: RoundState, event: InclusionReceived, now: float) -> Step:
    """A later cut than the one we voted under: a reducer died while it handed its result out, and
    it did not reach all.

    The vote stands, one a view. But the others need the slices that are ours under this cut, or
    they wait for them until the view is over.
    """
    plan, inclusion = state.plan, event.inclusion
    if plan is None or inclusion.plan != plan.digest or state.merge is not None:
        return state, []
    wanted, refusals = _check(state, event)
    if not wanted or plan.index[state.context.me] not in inclusion.present:
        return state, refusals
    return state, [ServeInclusion(plan=plan, inclusion=inclusion, digest=event.signed.digest)]


def _check(state: RoundState, event: InclusionReceived) -> tuple[bool, list[Action]]:
    """Whether a cut of the current plan is from who may make it, newer than the one we know, and
    fits; what to refuse where it is not.
    """
    plan, inclusion, known = state.plan, event.inclusion, state.inclusion
    assert plan is not None
    by = event.signed.peer
    if by != plan.leader:
        return False, [
            Refuse(peer=by, reason="not_leader", detail="a cut for a plan that is not its own")
        ]
    if known is not None and inclusion.number <= known.number:
        again = (
            state.inclusion_signed is not None
            and inclusion.number == known.number
            and event.signed.digest != state.inclusion_signed.digest
        )
        return False, [
            Refuse(peer=by, reason="equivocation", detail=f"two cuts {inclusion.number}")
        ] if again else []
    try:
        rules_of(state.context.manifest).check_inclusion(
            inclusion, plan, state.context.manifest, merging=state.merge is not None
        )
    except PeerFault as fault:
        return False, [Refuse(peer=by, reason=fault.reason, detail=str(fault))]
    return True, []


def result_received(state: RoundState, event: ResultReceived, now: float) -> Step:
    if state.inclusion_signed is None or event.inclusion != state.inclusion_signed.digest:
        return state, []
    return replace(state, results=state.results | {event.slice}), []


def reduce_overdue(state: RoundState, event: DeadlinePassed, now: float) -> Step:
    if state.target is not None:
        return vote_phase.fetch(state, state.target, now)
    if state.leads:
        return leader_decisions.include_again(state, now, final=True)
    return pass_view(state, now, f"the results of view {state.view} did not come in time")
