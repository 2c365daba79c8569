"""Carrying out a plan: what is held, the cut, the results, and what a lost member means for each."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.errors import PeerFault
from protocol.identity import PeerId, short
from protocol.messages import HoldReport
from protocol.round import leader_decisions, offer_phase, vote_phase
from protocol.round.phases import (
    Action,
    CutGot,
    HeldGot,
    HeldHere,
    PeerGone,
    Phase,
    ReadyGot,
    Reduce,
    Refuse,
    ResultGot,
    Send,
    Serve,
    State,
    Tick,
    WithdrawalGot,
)
from protocol.round.timeouts import gather_s, scatter_s
from protocol.round.views import (
    FOLLOWER_PATIENCE,
    Step,
    enter,
    left_out,
    note_gone,
    note_withdrawal,
    pass_view,
)
from protocol.rules.registry import rules_of

# At this share of the scatter's time a reducer tells the leader what it has, whole or not.
PARTIAL_HELD = 0.5


def gone_in_scatter(state: State, event: PeerGone, now: float) -> Step:
    state, _ = note_gone(state, event, now)
    return _scatter_without(state, now, event.peer, "was lost")


def withdrawn_in_scatter(state: State, event: WithdrawalGot, now: float) -> Step:
    """A member takes no part: what it would have sent is not waited for."""
    state = note_withdrawal(state, event)
    return (
        _scatter_without(state, now, event.peer, "withdrew")
        if event.peer in state.absent
        else (state, [])
    )


def ready_in_scatter(state: State, event: ReadyGot, now: float) -> Step:
    """An offer to a later view: its sender has left this one."""
    known = state.later
    state, actions = offer_phase.ready_got(state, event, now)
    if state.phase is not Phase.SCATTER or state.later == known:
        return state, actions
    state, more = _scatter_without(
        state, now, event.signed.peer, f"went on to view {event.ready.view}"
    )
    return state, [*actions, *more]


def _scatter_without(state: State, now: float, peer: PeerId, how: str) -> Step:
    plan = state.plan
    if state.decided:
        return state, []
    if plan is not None and (peer == plan.leader or state.hopeless):
        return pass_view(
            state,
            now,
            f"{short(peer)} {how} in scatter, {'its leader' if peer == plan.leader else 'and the majority'}",
        )
    if state.merge is not None:
        return state, []
    state, telling = _tell_held(state)
    state, cutting = leader_decisions.try_cut(state, now, final=False)
    return state, [*telling, *cutting]


def gone_in_reduce(state: State, event: PeerGone, now: float) -> Step:
    state, _ = note_gone(state, event, now)
    return _reduce_without(state, now, event.peer, "was lost")


def withdrawn_in_reduce(state: State, event: WithdrawalGot, now: float) -> Step:
    """A member takes no part: what it owes is somebody else's to do."""
    state = note_withdrawal(state, event)
    return (
        _reduce_without(state, now, event.peer, "withdrew")
        if event.peer in state.absent
        else (state, [])
    )


def ready_in_reduce(state: State, event: ReadyGot, now: float) -> Step:
    """An offer to a later view: its sender has left this one."""
    known = state.later
    state, actions = offer_phase.ready_got(state, event, now)
    if state.phase is not Phase.REDUCE or state.later == known:
        return state, actions
    state, more = _reduce_without(
        state, now, event.signed.peer, f"went on to view {event.ready.view}"
    )
    return state, [*actions, *more]


def _reduce_without(state: State, now: float, peer: PeerId, how: str) -> Step:
    if state.decided:
        return state, []
    if state.hopeless:
        return pass_view(state, now, f"{short(peer)} {how} in reduce, and the majority with it")
    if leader_decisions.beyond_recut(state):
        return pass_view(
            state,
            now,
            f"{short(peer)} {how} in reduce: a slice is missing, and the leader that could name a substitute",
        )
    return leader_decisions.recut(state, now, final=False)


def _tell_held(state: State) -> Step:
    """Tell the leader what we hold: once it is all that living members of our row offered, and at
    every change from then on.
    """
    plan = state.plan
    assert plan is not None
    row = plan.layout.mates(plan.index[state.rules.me])
    absent = state.absent
    wanted = {i for i in row if plan.offers[i].samples and plan.members[i] not in absent}
    if not (state.told or wanted <= state.held):
        return state, []
    held = HoldReport(plan=plan.digest, contributors=tuple(sorted(state.held)))
    return replace(state, told=True), [Send(to=(plan.leader,), message=held)]


def held_here(state: State, event: HeldHere, now: float) -> Step:
    if state.plan is None or event.plan != state.plan.digest:
        return state, []  # of the plan before
    return _tell_held(replace(state, held=event.contributors))


def held_got(state: State, event: HeldGot, now: float) -> Step:
    plan = state.plan
    if (
        plan is None
        or event.held.plan != plan.digest
        or event.peer not in plan.members
        or not state.leads
        or state.decided
    ):
        return state, []
    held = {**state.lead.held, event.peer: frozenset(event.held.contributors)}
    return leader_decisions.try_cut(
        replace(state, lead=replace(state.lead, held=held)), now, final=False
    )


def scatter_overdue(state: State, event: Tick, now: float) -> Step:
    if state.target is not None:
        return vote_phase.fetch(state, state.target, now)
    if state.merge is not None:
        return pass_view(state, now, f"no cut for the merge from {short(state.leader)}")
    if state.leads:
        return leader_decisions.try_cut(state, now, final=True)
    rules = state.rules.manifest.round
    allowed = scatter_s(state.plan, rules) if state.plan is not None else rules.scatter_s
    rest = allowed * (1.0 - PARTIAL_HELD) + FOLLOWER_PATIENCE * rules.ready_s
    if not state.overdue:
        state, actions = (state, []) if state.told else _tell_held(replace(state, told=True))
        return replace(state, overdue=True, deadline=now + rest), actions
    return pass_view(
        state, now, f"no cut from {short(state.leader)} within {allowed * PARTIAL_HELD + rest:g} s"
    )


def cut_got(state: State, event: CutGot, now: float) -> Step:
    plan, cut = state.plan, event.cut
    if plan is None or cut.plan != plan.digest or (state.decided and state.cut is not None):
        return state, []
    wanted, refusals = _check(state, event)
    if not wanted:
        return state, refusals
    if plan.index[state.rules.me] not in cut.present:
        if state.target is not None:
            return vote_phase.fetch(state, state.target, now)
        return left_out(
            state,
            now,
            f"left out of cut {cut.number}: {short(plan.leader)} took this node for lost, or it was too slow",
        )
    if state.merge is not None:
        return vote_phase.cast_merge(replace(state, cut=cut, cut_signed=event.signed), now)
    patience = gather_s(plan, state.rules.manifest.round) * (
        1.0 if state.leads else FOLLOWER_PATIENCE
    )
    state, actions = enter(
        state,
        Phase.REDUCE,
        now,
        cut.reason,
        deadline=now + patience,
        cut=cut,
        cut_signed=event.signed,
        results=frozenset(),
        spare=None,
    )
    return state, [*actions, Reduce(plan=plan, cut=cut, digest=event.signed.digest)]


def serve(state: State, event: CutGot, now: float) -> Step:
    """A later cut than the one we voted under: a reducer died while it handed its result out, and
    it did not reach all.

    The vote stands, one a view. But the others need the slices that are ours under this cut, or
    they wait for them until the view is over.
    """
    plan, cut = state.plan, event.cut
    if plan is None or cut.plan != plan.digest or state.merge is not None:
        return state, []
    wanted, refusals = _check(state, event)
    if not wanted or plan.index[state.rules.me] not in cut.present:
        return state, refusals
    return state, [Serve(plan=plan, cut=cut, digest=event.signed.digest)]


def _check(state: State, event: CutGot) -> tuple[bool, list[Action]]:
    """Whether a cut of the current plan is from who may make it, newer than the one we know, and
    fits; what to refuse where it is not.
    """
    plan, cut, known = state.plan, event.cut, state.cut
    assert plan is not None
    by = event.signed.peer
    if by != plan.leader:
        return False, [
            Refuse(peer=by, reason="not_leader", detail="a cut for a plan that is not its own")
        ]
    if known is not None and cut.number <= known.number:
        again = (
            state.cut_signed is not None
            and cut.number == known.number
            and event.signed.digest != state.cut_signed.digest
        )
        return False, [
            Refuse(peer=by, reason="equivocation", detail=f"two cuts {cut.number}")
        ] if again else []
    try:
        rules_of(state.rules.manifest).check_cut(
            cut, plan, state.rules.manifest, merging=state.merge is not None
        )
    except PeerFault as fault:
        return False, [Refuse(peer=by, reason=fault.reason, detail=str(fault))]
    return True, []


def result_got(state: State, event: ResultGot, now: float) -> Step:
    if state.cut_signed is None or event.cut != state.cut_signed.digest:
        return state, []
    return replace(state, results=state.results | {event.slice}), []


def reduce_overdue(state: State, event: Tick, now: float) -> Step:
    if state.target is not None:
        return vote_phase.fetch(state, state.target, now)
    if state.leads:
        return leader_decisions.recut(state, now, final=True)
    return pass_view(state, now, f"the results of view {state.view} did not come in time")
