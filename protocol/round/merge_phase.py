"""Meeting another branch: averaging with it is a round of its own, without anything to scatter."""

from __future__ import annotations

import math

from msgspec.structs import replace

from protocol.certificates.merge import merge_parents, merge_round
from protocol.contribution.offer import NOTHING
from protocol.round.actions import (
    AbandonExchange,
    AverageBranches,
    FetchBranch,
    GiveUpState,
    ResumeTraining,
)
from protocol.round.events import (
    DeadlinePassed,
    ForkFound,
    MergePrepared,
    StateBytesReceived,
    StateReceived,
    StateUnavailable,
)
from protocol.round.phase import Phase
from protocol.round.state import PendingMerge, RoundState
from protocol.round.views import (
    Step,
    back_to_training,
    begin_view,
    enter,
    remember_view,
)
from protocol.round.vote_phase import ADVANCE_S


def fork_found(state: RoundState, event: ForkFound, now: float) -> Step:
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
        deadline=now + state.context.manifest.round.ready_s,
        merge_target=event.other,
        merge=None,
        spare=None,
        offer=None,
        contribution=NOTHING,
        view=0,
        votes={},
        last_votes={},
        outcomes={},
        vote=None,
        readies={},
    )
    return state, [AbandonExchange(), *actions, ResumeTraining(), FetchBranch(other=event.other)]


def state_bytes_received(state: RoundState, event: StateBytesReceived, now: float) -> Step:
    """Verified bytes came: there is reason to wait for the rest."""
    if state.merge_target is None or event.certificate != state.merge_target.hash:
        return state, []
    return replace(state, deadline=max(state.deadline, now + ADVANCE_S)), []


def state_received(state: RoundState, event: StateReceived, now: float) -> Step:
    if state.merge_target is None or event.certificate.hash != state.merge_target.hash:
        return state, []
    return replace(state, merge_target=None, deadline=math.inf), [
        AverageBranches(other=state.merge_target)
    ]


def merge_prepared(state: RoundState, event: MergePrepared, now: float) -> Step:
    merge = PendingMerge(other=event.other, state=event.state)
    first = state.view_records.get(merge_round(merge_parents(state.tip.hash, event.other.hash)), 0)
    state = replace(state, merge=replace(merge, first_view=first), offer=event.ready, view=first)
    return begin_view(
        state, now, first, f"the average with certificate {event.other.number} is computed"
    )


def state_unavailable(state: RoundState, event: StateUnavailable, now: float) -> Step:
    if state.merge_target is None or event.certificate != state.merge_target.hash:
        return state, []
    return _give_up(state, now, event.reason)


def merge_overdue(state: RoundState, event: DeadlinePassed, now: float) -> Step:
    """Rounds on this node's own branch go on; the other one is met again later."""
    number = state.merge_target.number if state.merge_target is not None else "?"
    return _give_up(
        state, now, f"the state of certificate {number} of the other branch does not come"
    )


def _give_up(state: RoundState, now: float, reason: str) -> Step:
    other = state.merge_target
    assert other is not None
    state, actions = back_to_training(state, now, reason)
    return state, [GiveUpState(certificate=other.hash, merging=True), *actions]
