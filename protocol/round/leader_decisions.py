"""What only a view's leader decides: when to plan, when to cut, when to cut again."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.identity import PeerId, short
from protocol.messages.base import MAX_REASON_CHARS
from protocol.messages.round import Inclusion
from protocol.planning.plan import OpenPlan, make_plan
from protocol.round.actions import Action, PersistView, Send
from protocol.round.phase import Phase
from protocol.round.state import RoundState
from protocol.round.views import Step, go_alone, pass_view

# Of what is to be held, or of those who are to hold it: with less after the deadline a member is
# too slow for this plan.
ENOUGH = 2 / 3
# Of one view: each loses at least one member, and a view that lost eight is better begun anew.
MAX_INCLUSIONS = 8


def try_plan(state: RoundState, now: float, *, final: bool) -> Step:
    """Plan when everybody expected is ready; when `final`, with whoever is, or pass the view, or go
    on alone.
    """
    if state.phase is not Phase.READY or not state.leads:
        return state, []
    rules = state.context
    offers = [entry for entry in state.readies.values() if entry[1].view == state.view]
    ready = {signed.peer for signed, _ in offers}
    expected = (state.live - state.lost - state.in_later_view) | {rules.me}
    avoided = _avoided(state, ready)
    kept = [entry for entry in offers if entry[0].peer not in avoided]
    ready, expected = ready - avoided, expected - avoided
    everybody = (
        expected - state.passed_over <= ready and len(ready) >= rules.manifest.group.min_peers
    )
    if rules.me in ready and len(ready) >= rules.manifest.group.min_peers and (everybody or final):
        plan = make_plan(
            state.parent,
            state.view,
            state.number,
            kept,
            rules.manifest,
            rules.chunks,
            leader=rules.me,
            before=state.group_history,
        )
        members = tuple(signed.peer for signed in plan.offers)
        # Should it not be carried out here either, the next look is in a while, not at once and for
        # ever.
        state = replace(state, deadline=now + rules.manifest.round.ready_s)
        return state, [
            PersistView(parent=state.parent, view=state.view),
            Send(to=(*sorted(avoided), *_others(members, rules.me)), message=plan),
        ]
    if not final:
        return state, []
    if len(expected) >= rules.manifest.group.min_peers:
        missing = ", ".join(short(peer) for peer in sorted(expected - ready))
        return pass_view(
            state,
            now,
            f"no plan in view {state.view}: {missing or 'nobody else'} not ready within {rules.manifest.round.ready_s:g} s",
        )
    return go_alone(state, now)


def _avoided(state: RoundState, ready: set[PeerId]) -> frozenset[PeerId]:
    """Who failed most of its rounds with us and is to wait.

    A leader chooses whose offers it waits for, and this is why; but nobody is left out where the
    others would be few, for a plan without them might not come to a certificate at all.
    """
    avoided = (state.avoided & ready) - {state.context.me}
    rest = len(ready) - len(avoided)
    return (
        frozenset(avoided)
        if rest >= state.context.manifest.group.min_peers and 2 * rest > len(ready)
        else frozenset()
    )


def _others(members: tuple[PeerId, ...], me: PeerId) -> tuple[PeerId, ...]:
    """Everybody, ourselves last: we act on what we sent when it is on its way to the others."""
    return (*(peer for peer in members if peer != me), me)


def _lost(state: RoundState) -> frozenset[PeerId]:
    return state.absent | state.leader_state.silent | state.leader_state.slow


def _slow(plan: OpenPlan, state: RoundState) -> frozenset[PeerId]:
    """Who kept the others waiting until the deadline: owners that hold too little of what others of
    their row hold, and contributors that too few hold.

    Without this one slow downlink emptied the cut, since only what all owners hold can be in it.
    Nobody, where too few would be left.
    """
    alive = {i for i, peer in enumerate(plan.members) if peer not in _lost(state)}
    slow: set[int] = set()
    for row in plan.layout.groups:
        held = {
            i: state.leader_state.hold_reports.get(plan.members[i], frozenset()) & alive
            for i in row
            if i in alive and plan.layout.sums(i)
        }
        most = max((len(each) for each in held.values()), default=0)
        late = {i for i, each in held.items() if len(each) < ENOUGH * most}
        others = held.keys() - late
        unheld = {
            j
            for j in _offering(plan) & alive & set(row)
            if sum(j in held[i] for i in others - {j}) < ENOUGH * len(others - {j})
        }
        slow |= late | unheld
    slow.discard(plan.index[state.context.me])
    least = max(plan.majority, state.context.manifest.group.min_peers)
    return (
        frozenset(plan.members[i] for i in slow) if len(alive) - len(slow) >= least else frozenset()
    )


def _reducers(plan: OpenPlan) -> tuple[int, ...]:
    """Members with anything to sum."""
    return tuple(i for i in range(len(plan.members)) if plan.layout.sums(i))


def _offering(plan: OpenPlan) -> frozenset[int]:
    return frozenset(i for i, offer in enumerate(plan.offers) if offer.samples)


def try_inclusion(state: RoundState, now: float, *, final: bool) -> Step:
    """The first Cut: when every live reducer holds all that live members of its row offered; when
    `final`, what they all hold.

    Each contributor is held whole by every live owner in its row: one set of contributors holds for
    the whole vector.
    """
    if (
        state.phase is not Phase.SCATTER
        or not state.leads
        or state.plan is None
        or state.merge is not None
    ):
        return state, []
    plan = state.plan
    held = dict(state.leader_state.hold_reports)
    if final:
        # Whatever it lacks itself, the leader is not silent.
        held[state.context.me] = state.held_contributors
        silent = frozenset(plan.members[i] for i in _reducers(plan) if plan.members[i] not in held)
        state = replace(
            state,
            leader_state=replace(
                state.leader_state, hold_reports=held, silent=state.leader_state.silent | silent
            ),
        )
        state = replace(
            state,
            leader_state=replace(
                state.leader_state, slow=state.leader_state.slow | _slow(plan, state)
            ),
        )
    lost = _lost(state)
    alive = [i for i, peer in enumerate(plan.members) if peer not in lost]
    reducers = [i for i in _reducers(plan) if i in alive]
    wanted = _offering(plan) & frozenset(alive)
    contributors: set[int] = set()
    for r, row in enumerate(plan.layout.groups):
        of_row = wanted.intersection(row)
        holders = [
            held.get(plan.members[i], frozenset()) for i in reducers if plan.layout.group_of[i] == r
        ]
        if not final and any(not of_row <= holder for holder in holders):
            return state, []
        contributors |= of_row.intersection(*holders) if holders else frozenset()
    return _send_inclusion(state, now, 1, alive, frozenset(contributors), wanted - contributors)


def include_all_for_merge(state: RoundState) -> list[Action]:
    """A merge has nothing to scatter: its cut follows its plan at once, names everybody and
    includes nobody.
    """
    plan = state.plan
    assert plan is not None
    everybody = tuple(range(len(plan.members)))
    reason = f"merging certificates {state.tip.number} and {state.merge.other.number if state.merge else '?'}"
    inclusion = Inclusion(
        plan=plan.digest,
        number=1,
        contributors=(),
        present=everybody,
        owners=everybody,
        reason=reason,
    )
    return [Send(to=_others(plan.members, state.context.me), message=inclusion)]


def include_again(state: RoundState, now: float, *, final: bool) -> Step:
    """A further Cut when an owner was lost before its result was here: a substitute sums that slice
    from what contributors kept.
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
        silent = frozenset(plan.members[inclusion.owners[i]] for i in _waited_for(plan, state)) - {
            state.context.me
        }
        state = replace(
            state,
            leader_state=replace(state.leader_state, silent=state.leader_state.silent | silent),
        )
    lost = _lost(state)
    # A lost contributor matters as well: a substitute may be waiting for its bytes.
    stalled = any(plan.members[inclusion.owners[i]] in lost for i in _needed(plan, state)) or (
        inclusion.number > 1
        and any(plan.members[i] in lost for i in inclusion.contributors)
        and bool(missing)
    )
    if not stalled:
        return (
            (state, [])
            if not final
            else pass_view(
                state, now, f"slices {missing} of view {state.view} did not come in time"
            )
        )
    alive = [i for i in inclusion.present if plan.members[i] not in lost]
    contributors = frozenset(inclusion.contributors) & frozenset(alive)
    return _send_inclusion(
        state,
        now,
        inclusion.number + 1,
        alive,
        contributors,
        frozenset(inclusion.contributors) - contributors,
    )


def cannot_include_again(state: RoundState) -> bool:
    """Whether a lost member owes us a slice and the leader, who alone could name a substitute, is
    lost as well.

    Without this the survivors of a leader that died as a reducer waited for the whole of `gather_s`
    twice over: 40 s with the defaults.
    """
    plan, inclusion = state.plan, state.inclusion
    absent = state.absent
    if plan is None or inclusion is None or plan.leader not in absent:
        return False
    return any(plan.members[inclusion.owners[i]] in absent for i in _needed(plan, state))


def _missing(plan: OpenPlan, state: RoundState) -> list[int]:
    """Slices whose result is not here."""
    return [
        i for i in range(len(plan.members)) if plan.layout.finishes(i) and i not in state.results
    ]


def _needed(plan: OpenPlan, state: RoundState) -> frozenset[int]:
    """Members whose work, or whose substitute's, the missing slices wait for: whoever finishes one,
    and those of its rank, who sum it over their rows.

    Not one whose own slice is here: it summed before it finished that, and what it would hand on
    comes from where it was made.
    """
    missing = _missing(plan, state)
    return frozenset(
        j for i in missing for j in plan.layout.counterparts[i] if j == i or j not in state.results
    )


def _waited_for(plan: OpenPlan, state: RoundState) -> frozenset[int]:
    """Of those, the ones that cannot have done theirs.

    A slice of a rank that is here says that all of the rank summed: each finished slice holds the
    sums of all rows. Where none is here it may be any of them.
    """
    late: set[int] = set()
    for i in _missing(plan, state):
        ranked = plan.layout.counterparts[i]
        late |= {i} if any(j in state.results for j in ranked) else set(ranked)
    return frozenset(late)


def _send_inclusion(
    state: RoundState,
    now: float,
    number: int,
    alive: list[int],
    contributors: frozenset[int],
    without: frozenset[int],
) -> Step:
    plan = state.plan
    assert plan is not None
    least = max(plan.majority, state.context.manifest.group.min_peers)
    if len(alive) < least or not contributors or number > MAX_INCLUSIONS:
        return pass_view(
            state,
            now,
            f"{len(alive)} of {len(plan.members)} members left in view {state.view} with {len(contributors)} contributions; {least} are needed",
        )
    slow = [short(peer) for peer in plan.members if peer in state.leader_state.slow]
    lost = [
        short(peer)
        for i, peer in enumerate(plan.members)
        if i not in alive and peer not in state.leader_state.slow
    ]
    reason = f"cut {number}: {len(contributors)} of {len(_offering(plan))} contributions"
    if without:
        reason += f", without {', '.join(short(plan.members[i]) for i in sorted(without))}"
    if slow:
        reason += f"; too slow {', '.join(slow)}, what they did waits a round"
    if lost:
        reason += f"; lost {', '.join(lost)}"
    inclusion = Inclusion(
        plan=plan.digest,
        number=number,
        contributors=tuple(sorted(contributors)),
        present=tuple(alive),
        owners=_owners(plan, alive),
        # Half of a large group may be named in it, and twice.
        reason=reason[:MAX_REASON_CHARS],
    )
    return state, [Send(to=_others(plan.members, state.context.me), message=inclusion)]


def _owners(plan: OpenPlan, alive: list[int]) -> tuple[int, ...]:
    """Who does every member's work: itself where it lives, else the living member of its row with
    the least to sum, the first of equals; where its whole row is lost, anybody's.
    """
    parts = plan.layout.parts
    load = {i: parts[i][1] - parts[i][0] for i in alive}
    owners = []
    for i in range(len(plan.members)):
        near = [j for j in plan.layout.group_members(i) if j in load] or alive
        owner = i if i in load else min(near, key=lambda j: (load[j], j))
        if owner != i:
            load[owner] += parts[i][1] - parts[i][0]
        owners.append(owner)
    return tuple(owners)
