"""What only a view's leader decides: when to plan, when to cut, when to cut again."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.identity import PeerId, short
from protocol.messages import MAX_REASON_CHARS, Cut
from protocol.plan import OpenPlan, make_plan
from protocol.round.phases import Action, Lead, Phase, Send, State, TakeStand
from protocol.round.views import Step, go_alone, pass_view

MAX_CUTS = 8  # of one view: each loses at least one member, and a view that lost eight is better begun anew


def try_plan(state: State, now: float, *, final: bool) -> Step:
    """Plan when everybody expected is ready; when `final`, with whoever is, or pass the view, or go on alone."""
    if state.phase is not Phase.READY or not state.leads:
        return state, []
    rules = state.rules
    offers = [entry for entry in state.readies.values() if entry[1].view == state.view]
    ready = {signed.peer for signed, _ in offers}
    expected = (state.live - state.gone) | {rules.me}
    everybody = expected - state.passed <= ready and len(ready) >= rules.manifest.group.min_peers
    if rules.me in ready and len(ready) >= rules.manifest.group.min_peers and (everybody or final):
        plan = make_plan(state.parent, state.view, state.number, offers, rules.manifest, rules.chunks, leader=rules.me)
        members = tuple(signed.peer for signed in plan.offers)
        # Should it not be carried out here either, the next look is in a while, not at once and for ever.
        state = replace(state, deadline=now + rules.manifest.round.ready_s)
        return state, [TakeStand(parent=state.parent, view=state.view), Send(to=_others(members, rules.me), message=plan)]
    if not final:
        return state, []
    if len(expected) >= rules.manifest.group.min_peers:
        missing = ", ".join(short(peer) for peer in sorted(expected - ready))
        return pass_view(
            state, now, f"no plan in view {state.view}: {missing or 'nobody else'} not ready within {rules.manifest.round.ready_s:g} s"
        )
    return go_alone(state, now)


def _others(members: tuple[PeerId, ...], me: PeerId) -> tuple[PeerId, ...]:
    """Everybody, ourselves last: we act on what we sent when it is on its way to the others."""
    return (*(peer for peer in members if peer != me), me)


def _lost(state: State) -> frozenset[PeerId]:
    return state.gone | state.lead.silent


def _reducers(plan: OpenPlan) -> tuple[int, ...]:
    """Members with anything to reduce."""
    borders = plan.plan.borders
    return tuple(i for i in range(len(plan.members)) if borders[i + 1] > borders[i])


def _offering(plan: OpenPlan) -> frozenset[int]:
    return frozenset(i for i, offer in enumerate(plan.offers) if offer.samples)


def try_cut(state: State, now: float, *, final: bool) -> Step:
    """The first Cut: when every live reducer holds all that live members offered; when `final`, what they all hold."""
    if state.phase is not Phase.SCATTER or not state.leads or state.plan is None or state.merge is not None:
        return state, []
    plan = state.plan
    held = dict(state.lead.held)
    if final:
        held[state.rules.me] = state.held  # whatever it lacks itself, the leader is not silent
        silent = frozenset(plan.members[i] for i in _reducers(plan) if plan.members[i] not in held)
        state = replace(state, lead=Lead(held=held, silent=state.lead.silent | silent))
    lost = _lost(state)
    alive = [i for i, peer in enumerate(plan.members) if peer not in lost]
    reducers = [i for i in _reducers(plan) if i in alive]
    wanted = _offering(plan) & frozenset(alive)
    if not final and any(not wanted <= held.get(plan.members[i], frozenset()) for i in reducers):
        return state, []
    whole = [held.get(plan.members[i], frozenset()) for i in reducers]
    contributors = wanted.intersection(*whole) if whole else frozenset()
    return _send_cut(state, now, 1, alive, contributors, wanted - contributors)


def merge_cut(state: State) -> list[Action]:
    """A merge has nothing to scatter: its cut follows its plan at once, names everybody and includes nobody."""
    plan = state.plan
    assert plan is not None
    everybody = tuple(range(len(plan.members)))
    reason = f"merging certificates {state.tip.number} and {state.merge.other.number if state.merge else '?'}"
    cut = Cut(plan=plan.digest, number=1, contributors=(), present=everybody, owners=everybody, reason=reason)
    return [Send(to=_others(plan.members, state.rules.me), message=cut)]


def recut(state: State, now: float, *, final: bool) -> Step:
    """A further Cut when an owner was lost before its result was here: a substitute sums that slice from what contributors kept."""
    if state.phase is not Phase.REDUCE or not state.leads or state.plan is None or state.cut is None:
        return state, []
    plan, cut = state.plan, state.cut
    borders = plan.plan.borders
    missing = [i for i in range(len(plan.members)) if borders[i + 1] > borders[i] and i not in state.results]
    if final:
        silent = frozenset(plan.members[cut.owners[i]] for i in missing) - {state.rules.me}
        state = replace(state, lead=Lead(held=state.lead.held, silent=state.lead.silent | silent))
    lost = _lost(state)
    # A lost contributor matters as well: a substitute may be waiting for its bytes.
    stalled = any(plan.members[cut.owners[i]] in lost for i in missing) or (
        cut.number > 1 and any(plan.members[i] in lost for i in cut.contributors) and bool(missing)
    )
    if not stalled:
        return (state, []) if not final else pass_view(state, now, f"slices {missing} of view {state.view} did not come in time")
    alive = [i for i in cut.present if plan.members[i] not in lost]
    contributors = frozenset(cut.contributors) & frozenset(alive)
    return _send_cut(state, now, cut.number + 1, alive, contributors, frozenset(cut.contributors) - contributors)


def beyond_recut(state: State) -> bool:
    """Whether a lost member owes us a slice and the leader, who alone could name a substitute, is lost as well.

    Without this the survivors of a leader that died as a reducer waited for the whole of `gather_s` twice over: 40 s with the defaults.
    """
    plan, cut = state.plan, state.cut
    if plan is None or cut is None or plan.leader not in state.gone:
        return False
    borders = plan.plan.borders
    missing = [i for i in range(len(plan.members)) if borders[i + 1] > borders[i] and i not in state.results]
    return any(plan.members[cut.owners[i]] in state.gone for i in missing)


def _send_cut(state: State, now: float, number: int, alive: list[int], contributors: frozenset[int], without: frozenset[int]) -> Step:
    plan = state.plan
    assert plan is not None
    least = max(plan.majority, state.rules.manifest.group.min_peers)
    if len(alive) < least or not contributors or number > MAX_CUTS:
        return pass_view(
            state,
            now,
            f"{len(alive)} of {len(plan.members)} members left in view {state.view} with {len(contributors)} contributions; {least} are needed",
        )
    lost = [short(peer) for i, peer in enumerate(plan.members) if i not in alive]
    reason = f"cut {number}: {len(contributors)} of {len(_offering(plan))} contributions"
    if without:
        reason += f", without {', '.join(short(plan.members[i]) for i in sorted(without))}"
    if lost:
        reason += f"; lost {', '.join(lost)}"
    cut = Cut(
        plan=plan.digest,
        number=number,
        contributors=tuple(sorted(contributors)),
        present=tuple(alive),
        owners=_owners(plan, alive),
        reason=reason[:MAX_REASON_CHARS],  # half of a large group may be named in it, and twice
    )
    return state, [Send(to=_others(plan.members, state.rules.me), message=cut)]


def _owners(plan: OpenPlan, alive: list[int]) -> tuple[int, ...]:
    """Every slice's owner: its own member where that one lives, else the living member with the least to reduce, the first of equals."""
    borders = plan.plan.borders
    load = {i: borders[i + 1] - borders[i] for i in alive}
    owners = []
    for i in range(len(plan.members)):
        owner = i if i in load else min(alive, key=lambda j: (load[j], j))
        if owner != i:
            load[owner] += borders[i + 1] - borders[i]
        owners.append(owner)
    return tuple(owners)
