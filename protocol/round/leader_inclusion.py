"""When a view's leader closes the inclusion, whom it includes, and who replaces a lost member."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.identity import PeerId
from protocol.messages.base import MAX_REASON_CHARS
from protocol.messages.round import Inclusion
from protocol.planning.plan import OpenPlan
from protocol.round import actions as a
from protocol.round.awaited_work import awaited, newcomers_s, offering
from protocol.round.inclusion_reasons import MAX_INCLUSIONS, failure, inclusion_reason
from protocol.round.leader_plan import self_last
from protocol.round.phase import Phase
from protocol.round.quorum import certifies
from protocol.round.state import RoundState
from protocol.round.transitions import Transition
from protocol.round.views import pass_view

# A member that holds less than this share of what others hold at the deadline is too slow for the
# plan, and so is one whose contribution a smaller share of the owners holds.
ENOUGH = 2 / 3


def _lost(state: RoundState) -> frozenset[PeerId]:
    return state.absent | state.leader_state.silent | state.leader_state.slow


def _slow(plan: OpenPlan, state: RoundState, now: float) -> frozenset[PeerId]:
    """The members that kept the others waiting until the deadline.

    They are owners that hold too little of what others of their group hold, and contributors that
    too few owners hold. Only what all owners hold can be included: without this check, one slow
    downlink would empty the inclusion. Where too few members would be left, no member counts as
    slow.
    """
    alive = {i for i, peer in enumerate(plan.members) if peer not in _lost(state)}
    reports = state.leader_state.hold_reports
    slow: set[int] = set()
    for group in plan.layout.groups:
        held = {
            i: reports.get(plan.members[i], frozenset()) & alive
            for i in group
            if i in alive and plan.layout.sums(i)
        }
        most = max((len(each) for each in held.values()), default=0)
        late = {i for i, each in held.items() if len(each) < ENOUGH * most}
        others = held.keys() - late
        unheld = {
            j
            for j in offering(plan) & alive & set(group)
            if sum(j in held[i] for i in others - {j}) < ENOUGH * len(others - {j})
        }
        slow |= late | unheld
    slow.discard(plan.index[state.context.me])
    if not certifies(state, plan, {plan.members[i] for i in alive - slow}, now):
        return frozenset()
    return frozenset(plan.members[i] for i in slow)


def _reducers(plan: OpenPlan) -> tuple[int, ...]:
    """The members with anything to sum."""
    return tuple(i for i in range(len(plan.members)) if plan.layout.sums(i))


def try_include(state: RoundState, now: float, *, final: bool) -> Transition:
    """Send the first inclusion once every live reducer holds all that its group's members offered.

    Where only work of newcomers is missing, the deadline comes soon (`newcomers_s`).
    With `final`, include what they all hold now. Every live owner of a group holds an included
    contribution whole, so one set of contributors holds for the whole vector.
    """
    if (
        state.phase is not Phase.SCATTER
        or not state.leads
        or state.plan is None
        or state.merge is not None
    ):
        return state, []
    plan = state.plan
    if final:
        state = _close_reports(state, plan, now)
    reports, lost = state.leader_state.hold_reports, _lost(state)
    alive = [i for i, peer in enumerate(plan.members) if peer not in lost]
    reducers = [i for i in _reducers(plan) if i in alive]
    wanted = offering(plan) & frozenset(alive)
    contributors: set[int] = set()
    # Whether the work of all members has arrived, and whether everybody's has.
    members_in = complete = True
    for g, group in enumerate(plan.layout.groups):
        offered = wanted.intersection(group)
        holdings = [
            reports.get(plan.members[i], frozenset())
            for i in reducers
            if plan.layout.group_of[i] == g
        ]
        complete &= all(offered <= holding for holding in holdings)
        members_in &= all(offered & awaited(state, plan) <= holding for holding in holdings)
        contributors |= offered.intersection(*holdings) if holdings else frozenset()
    if not final and not complete:
        soon = now + newcomers_s(state, plan) if members_in else state.deadline
        return replace(state, deadline=min(state.deadline, soon)), []
    return _send_inclusion(state, now, 1, alive, frozenset(contributors), wanted - contributors)


def _close_reports(state: RoundState, plan: OpenPlan, now: float) -> RoundState:
    """Note who was silent and who was slow at the deadline."""
    # The leader is not silent, whatever it lacks itself.
    reports = {**state.leader_state.hold_reports, state.context.me: state.held_contributors}
    silent = frozenset(plan.members[i] for i in _reducers(plan) if plan.members[i] not in reports)
    known = replace(
        state.leader_state,
        hold_reports=reports,
        silent=state.leader_state.silent | silent,
    )
    state = replace(state, leader_state=known)
    return replace(state, leader_state=replace(known, slow=known.slow | _slow(plan, state, now)))


def include_for_merge(state: RoundState) -> list[a.Action]:
    """Send a merge's inclusion at once: it names all members present, without contributors."""
    plan, merge = state.plan, state.merge
    assert plan is not None
    assert merge is not None
    all_members = tuple(range(len(plan.members)))
    inclusion = Inclusion(
        plan=plan.digest,
        number=1,
        contributors=(),
        present=all_members,
        owners=all_members,
        reason=f"merging certificates {state.tip.number} and {merge.other.number}",
    )
    return [a.Send(to=self_last(plan.members, state.context.me), message=inclusion)]


def include_again(state: RoundState, now: float, *, final: bool) -> Transition:
    """Send a further inclusion when an owner was lost before its result arrived.

    A substitute sums the owner's slice from what the contributors kept.
    """
    if (
        state.phase is not Phase.REDUCE
        or not state.leads
        or state.plan is None
        or state.inclusion is None
    ):
        return state, []
    plan, inclusion = state.plan, state.inclusion
    missing = _missing(plan, state)
    if final:
        late = frozenset(plan.members[inclusion.owners[i]] for i in _overdue(plan, state))
        known = state.leader_state
        silent = known.silent | (late - {state.context.me})
        state = replace(state, leader_state=replace(known, silent=silent))
    lost = _lost(state)
    # A lost contributor matters as well: a substitute may be waiting for its bytes.
    stalled = any(plan.members[inclusion.owners[i]] in lost for i in _needed(plan, state)) or (
        inclusion.number > 1
        and any(plan.members[i] in lost for i in inclusion.contributors)
        and bool(missing)
    )
    if stalled:
        alive = [i for i in inclusion.present if plan.members[i] not in lost]
        included = frozenset(inclusion.contributors)
        contributors = included & frozenset(alive)
        return _send_inclusion(
            state, now, inclusion.number + 1, alive, contributors, included - contributors
        )
    if not final:
        return state, []
    return pass_view(state, now, f"slices {missing} of view {state.view} did not arrive in time")


def cannot_include_again(state: RoundState) -> bool:
    """Whether an absent member owes a slice and the leader, who could replace it, is absent too.

    Without this, the survivors of a leader that died as a reducer waited for twice `gather_s`: 40 s
    with the defaults.
    """
    plan, inclusion = state.plan, state.inclusion
    absent = state.absent
    if plan is None or inclusion is None or plan.leader not in absent:
        return False
    return any(plan.members[inclusion.owners[i]] in absent for i in _needed(plan, state))


def _missing(plan: OpenPlan, state: RoundState) -> list[int]:
    """The slices whose result has not arrived."""
    return [
        i for i in range(len(plan.members)) if plan.layout.finishes(i) and i not in state.results
    ]


def _needed(plan: OpenPlan, state: RoundState) -> frozenset[int]:
    """The members whose work, or whose substitute's work, a missing slice waits for.

    They are its finisher and the counterparts that sum it over their groups. A counterpart whose
    own slice arrived is not needed: it summed before it finished that slice.
    """
    missing = _missing(plan, state)
    return frozenset(
        j for i in missing for j in plan.layout.counterparts[i] if j == i or j not in state.results
    )


def _overdue(plan: OpenPlan, state: RoundState) -> frozenset[int]:
    """The needed members that cannot have done their work.

    A finished slice holds the sums of all groups: if one slice of the counterparts has arrived,
    they all summed. If none has arrived, any of them may be late.
    """
    late: set[int] = set()
    for i in _missing(plan, state):
        counterparts = plan.layout.counterparts[i]
        late |= {i} if any(j in state.results for j in counterparts) else set(counterparts)
    return frozenset(late)


def _send_inclusion(
    state: RoundState,
    now: float,
    number: int,
    alive: list[int],
    contributors: frozenset[int],
    without: frozenset[int],
) -> Transition:
    plan = state.plan
    assert plan is not None
    enough = certifies(state, plan, {plan.members[i] for i in alive}, now)
    if not enough or not contributors or number > MAX_INCLUSIONS:
        return pass_view(state, now, failure(state, plan, alive, contributors, enough=enough))
    inclusion = Inclusion(
        plan=plan.digest,
        number=number,
        contributors=tuple(sorted(contributors)),
        present=tuple(alive),
        owners=_owners(plan, alive),
        # The reason may name half of a large group, and twice.
        reason=inclusion_reason(state, number, alive, contributors, without)[:MAX_REASON_CHARS],
    )
    return state, [a.Send(to=self_last(plan.members, state.context.me), message=inclusion)]


def _owners(plan: OpenPlan, alive: list[int]) -> tuple[int, ...]:
    """Who does each member's work.

    A living member does its own. For another one, the living member of its group with the least to
    sum takes over, the first of equals; where its whole group is lost, any living member.
    """
    parts = plan.layout.parts
    load = {i: parts[i][1] - parts[i][0] for i in alive}
    owners = []
    for i in range(len(plan.members)):
        candidates = [j for j in plan.layout.group_members(i) if j in load] or alive
        owner = i if i in load else min(candidates, key=lambda j: (load[j], j))
        if owner != i:
            load[owner] += parts[i][1] - parts[i][0]
        owners.append(owner)
    return tuple(owners)
