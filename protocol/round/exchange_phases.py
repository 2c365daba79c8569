"""SCATTER and REDUCE: hold reports, inclusions, results, and what a lost member means for each."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.errors import PeerFault
from protocol.identity import PeerId, short
from protocol.messages.round import HoldReport
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round import fetch_phase, leader_inclusion, offer_phase, vote_phase
from protocol.round.awaited_work import awaited
from protocol.round.phase import Phase
from protocol.round.quorum import majority_lost
from protocol.round.state import RoundState
from protocol.round.timeouts import REPORT_SHARE, gather_s, scatter_s
from protocol.round.transitions import Transition, enter, note_lost, note_withdrawal, watch
from protocol.round.views import FOLLOWER_TIMEOUTS, pass_view
from protocol.rules.registry import rules_of


def peer_lost(state: RoundState, event: e.PeerLost, now: float) -> Transition:
    """Go on without a lost peer."""
    state, _ = note_lost(state, event, now)
    return _continue_without(state, now, event.peer, "was lost")


def withdrawal_received(state: RoundState, event: e.WithdrawalReceived, now: float) -> Transition:
    """Go on without a member that takes no part: nothing waits for what it owes."""
    state, _ = note_withdrawal(state, event, now)
    if event.peer not in state.absent:
        return state, []
    return _continue_without(state, now, event.peer, "withdrew")


def ready_received(state: RoundState, event: e.ReadyReceived, now: float) -> Transition:
    """Go on without a member whose offer to a later view says that it has left this one."""
    phase, known = state.phase, state.in_later_view
    state, actions = offer_phase.ready_received(state, event, now)
    if state.phase is not phase or state.in_later_view == known:
        return state, actions
    how = f"went on to view {event.ready.view}"
    state, more = _continue_without(state, now, event.signed.peer, how)
    return state, [*actions, *more]


def _continue_without(state: RoundState, now: float, peer: PeerId, how: str) -> Transition:
    if state.decided:
        return state, []
    if state.phase is Phase.SCATTER:
        return _scatter_without(state, now, peer, how)
    return _reduce_without(state, now, peer, how)


def _scatter_without(state: RoundState, now: float, peer: PeerId, how: str) -> Transition:
    plan = state.plan
    if plan is not None and peer == plan.leader:
        return pass_view(state, now, f"its leader {short(peer)} {how} during scatter")
    if majority_lost(state, now):
        return pass_view(state, now, f"{short(peer)} {how} during scatter, and no majority is left")
    if state.merge is not None:
        return state, []
    state, reporting = _report_held(state)
    state, including = leader_inclusion.try_include(state, now, final=False)
    return state, [*reporting, *including]


def _reduce_without(state: RoundState, now: float, peer: PeerId, how: str) -> Transition:
    if majority_lost(state, now):
        return pass_view(state, now, f"{short(peer)} {how} during reduce, and no majority is left")
    if leader_inclusion.cannot_include_again(state):
        return pass_view(
            state,
            now,
            f"{short(peer)} {how} during reduce: a slice is missing, "
            "and the leader that could name a substitute is absent",
        )
    return leader_inclusion.include_again(state, now, final=False)


def _report_held(state: RoundState) -> Transition:
    """Report to the leader what this node holds.

    The first report follows when the node holds all that living members of its group offered,
    newcomers aside. From then on it reports every change.
    """
    plan = state.plan
    assert plan is not None
    group = plan.layout.group_members(plan.index[state.context.me])
    absent = state.absent
    wanted = {i for i in awaited(state, plan) & set(group) if plan.members[i] not in absent}
    if not (state.hold_reported or wanted <= state.held_contributors):
        return state, []
    report = HoldReport(plan=plan.digest, contributors=tuple(sorted(state.held_contributors)))
    return replace(state, hold_reported=True), [a.Send(to=(plan.leader,), message=report)]


def contributions_received(
    state: RoundState, event: e.ContributionsReceived, now: float
) -> Transition:
    """Update what this node holds, and report it."""
    if state.plan is None or event.plan != state.plan.digest:
        # The contributions are of the plan before.
        return state, []
    return _report_held(replace(state, held_contributors=event.contributors))


def hold_report_received(state: RoundState, event: e.HoldReportReceived, now: float) -> Transition:
    """Close the inclusion, as the leader, once the reports suffice."""
    plan = state.plan
    if (
        plan is None
        or event.report.plan != plan.digest
        or event.peer not in plan.members
        or not state.leads
        or state.decided
    ):
        return state, []
    known = state.leader_state
    reports = {**known.hold_reports, event.peer: frozenset(event.report.contributors)}
    state = replace(state, leader_state=replace(known, hold_reports=reports))
    return leader_inclusion.try_include(state, now, final=False)


def scatter_overdue(state: RoundState, event: e.DeadlinePassed, now: float) -> Transition:
    """Close the inclusion as the leader; report once, then pass the view, as a follower."""
    if state.target is not None:
        return fetch_phase.fetch(state, state.target, now)
    if state.merge is not None:
        return pass_view(state, now, f"no inclusion for the merge from {short(state.leader)}")
    if state.leads:
        return leader_inclusion.try_include(state, now, final=True)
    rules = state.context.manifest.round
    allowed_s = scatter_s(state.plan, rules) if state.plan is not None else rules.scatter_s
    rest_s = allowed_s * (1.0 - REPORT_SHARE) + FOLLOWER_TIMEOUTS * rules.ready_s
    if not state.overdue:
        state, actions = (
            (state, []) if state.hold_reported else _report_held(replace(state, hold_reported=True))
        )
        return replace(state, overdue=True, deadline=now + rest_s), actions
    waited_s = allowed_s * REPORT_SHARE + rest_s
    return pass_view(state, now, f"no inclusion from {short(state.leader)} within {waited_s:g} s")


def inclusion_received(state: RoundState, event: e.InclusionReceived, now: float) -> Transition:
    """Reduce under a new inclusion, or leave the round when it names this node absent."""
    plan, inclusion = state.plan, event.inclusion
    if (
        plan is None
        or inclusion.plan != plan.digest
        or (state.decided and state.inclusion is not None)
    ):
        return state, []
    fits, refusals = _check(state, event)
    if not fits:
        return state, refusals
    if plan.index[state.context.me] not in inclusion.present:
        if state.target is not None:
            return fetch_phase.fetch(state, state.target, now)
        return watch(
            state,
            now,
            f"{short(plan.leader)} left this node out of inclusion {inclusion.number}: "
            "it was slow or seemed lost",
        )
    if state.merge is not None:
        included = replace(state, inclusion=inclusion, inclusion_signed=event.signed)
        return vote_phase.cast_merge(included, now)
    timeout_s = gather_s(plan, state.context.manifest.round) * (
        1.0 if state.leads else FOLLOWER_TIMEOUTS
    )
    state, actions = enter(
        state,
        Phase.REDUCE,
        now,
        inclusion.reason,
        deadline=now + timeout_s,
        inclusion=inclusion,
        inclusion_signed=event.signed,
        results=frozenset(),
        spare=None,
    )
    manifest = state.context.manifest
    reduce = a.Reduce(
        plan=plan,
        inclusion=inclusion,
        digest=event.signed.digest,
        outer=rules_of(manifest).outer_at(manifest, state.tip.samples),
        record=state.record,
        round_s=state.round_s,
    )
    return state, [*actions, reduce]


def serve_inclusion(state: RoundState, event: e.InclusionReceived, now: float) -> Transition:
    """Serve a later inclusion than the one that this node voted under.

    A reducer died while it sent its result out, and the result did not reach all members. The vote
    stays: a node votes once in a view. But the others need this node's slices under the new
    inclusion. Without them, they wait until the view is over.
    """
    plan, inclusion = state.plan, event.inclusion
    if plan is None or inclusion.plan != plan.digest or state.merge is not None:
        return state, []
    fits, refusals = _check(state, event)
    if not fits or plan.index[state.context.me] not in inclusion.present:
        return state, refusals
    serve = a.ServeInclusion(plan=plan, inclusion=inclusion, digest=event.signed.digest)
    return state, [serve]


def _check(state: RoundState, event: e.InclusionReceived) -> tuple[bool, list[a.Action]]:
    """Whether an inclusion of the current plan is its leader's, new, and fits; else the refusal."""
    plan, inclusion, known = state.plan, event.inclusion, state.inclusion
    assert plan is not None
    sender = event.signed.peer
    if sender != plan.leader:
        detail = "an inclusion for a plan of another leader"
        return False, [a.Refuse(peer=sender, reason="not_leader", detail=detail)]
    if known is not None and inclusion.number <= known.number:
        differs = (
            state.inclusion_signed is not None
            and inclusion.number == known.number
            and event.signed.digest != state.inclusion_signed.digest
        )
        detail = f"two inclusions with number {inclusion.number}"
        refusal = a.Refuse(peer=sender, reason="equivocation", detail=detail)
        return False, [refusal] if differs else []
    manifest = state.context.manifest
    try:
        rules_of(manifest).check_inclusion(
            inclusion, plan, manifest, merging=state.merge is not None
        )
    except PeerFault as fault:
        return False, [a.Refuse(peer=sender, reason=fault.reason, detail=str(fault))]
    return True, []


def result_received(state: RoundState, event: e.ResultReceived, now: float) -> Transition:
    """Remember that a slice's result arrived."""
    if state.inclusion_signed is None or event.inclusion != state.inclusion_signed.digest:
        return state, []
    return replace(state, results=state.results | {event.slice}), []


def reduce_overdue(state: RoundState, event: e.DeadlinePassed, now: float) -> Transition:
    """Replace silent members as the leader; pass the view as a follower."""
    if state.target is not None:
        return fetch_phase.fetch(state, state.target, now)
    if state.leads:
        return leader_inclusion.include_again(state, now, final=True)
    return pass_view(state, now, f"the results of view {state.view} did not arrive in time")
