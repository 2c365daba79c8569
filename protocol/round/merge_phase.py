"""Meeting another branch: averaging with it is a round of its own, without anything to scatter."""

from __future__ import annotations

import math

from msgspec.structs import replace

from protocol.certificates.merge import merge_parents, merge_round
from protocol.contribution.offer import NOTHING
from protocol.round.phases import (
    Abandon,
    Average,
    ForkGot,
    GiveUp,
    Merge,
    MergePrepared,
    Phase,
    PrepareMerge,
    State,
    StateComing,
    StateHere,
    StateLost,
    Tick,
    TrainOn,
)
from protocol.round.views import (
    Step,
    back_to_training,
    begin_view,
    enter,
    remember_view,
)
from protocol.round.vote_phase import ADVANCE_S


def fork_got(state: State, event: ForkGot, now: float) -> Step:
    """Another branch lives: nothing is more urgent than being one run again."""
    if state.merge is not None and state.merge.other.hash == event.other.hash:
        return state, []
    reason = f"certificate {event.other.number} of another branch was met; averaging it with certificate {state.tip.number}"
    state = remember_view(state)
    state, actions = enter(
        state,
        Phase.MERGE,
        now,
        reason,
        deadline=now + state.rules.manifest.round.ready_s,
        meeting=event.other,
        merge=None,
        spare=None,
        offer=None,
        contribution=NOTHING,
        view=0,
        votes={},
        voted={},
        outcomes={},
        vote=None,
        readies={},
    )
    return state, [Abandon(), *actions, TrainOn(), PrepareMerge(other=event.other)]


def state_coming(state: State, event: StateComing, now: float) -> Step:
    """Verified bytes came: there is reason to wait for the rest."""
    if state.meeting is None or event.certificate != state.meeting.hash:
        return state, []
    return replace(state, deadline=max(state.deadline, now + ADVANCE_S)), []


def state_here(state: State, event: StateHere, now: float) -> Step:
    if state.meeting is None or event.certificate.hash != state.meeting.hash:
        return state, []
    return replace(state, meeting=None, deadline=math.inf), [Average(other=state.meeting)]


def merge_prepared(state: State, event: MergePrepared, now: float) -> Step:
    merge = Merge(other=event.other, state=event.state)
    first = state.stands.get(merge_round(merge_parents(state.tip.hash, event.other.hash)), 0)
    state = replace(state, merge=replace(merge, first_view=first), offer=event.ready, view=first)
    return begin_view(
        state, now, first, f"the average with certificate {event.other.number} is computed"
    )


def state_lost(state: State, event: StateLost, now: float) -> Step:
    if state.meeting is None or event.certificate != state.meeting.hash:
        return state, []
    return _give_up(state, now, event.reason)


def merge_overdue(state: State, event: Tick, now: float) -> Step:
    """Rounds on this node's own branch go on; the other one is met again later."""
    number = state.meeting.number if state.meeting is not None else "?"
    return _give_up(
        state, now, f"the state of certificate {number} of the other branch does not come"
    )


def _give_up(state: State, now: float, reason: str) -> Step:
    other = state.meeting
    assert other is not None
    state, actions = back_to_training(state, now, reason)
    return state, [GiveUp(certificate=other.hash, merging=True), *actions]
