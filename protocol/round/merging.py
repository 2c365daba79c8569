"""Meeting another branch: averaging with it is a round of its own, without anything to scatter."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.merge import merge_parents, merge_round
from protocol.round.phases import (
    Abandon,
    ForkGot,
    Merge,
    MergeFailed,
    MergePrepared,
    Phase,
    PrepareMerge,
    State,
)
from protocol.round.views import (
    Step,
    back_to_training,
    begin_view,
    enter,
    remember_view,
)


def fork_got(state: State, event: ForkGot, now: float) -> Step:
    """Another branch lives: nothing is more urgent than being one run again."""
    if state.merge is not None and state.merge.other.hash == event.other.hash:
        return state, []
    reason = f"certificate {event.other.number} of another branch was met; averaging it with certificate {state.tip.number}"
    state = remember_view(state)
    state, actions = enter(
        state, Phase.MERGE, now, reason, merge=None, spare=None, offer=None, view=0, votes={}, voted={}, outcomes={}, vote=None, readies={}
    )
    return state, [Abandon(), *actions, PrepareMerge(other=event.other)]


def merge_prepared(state: State, event: MergePrepared, now: float) -> Step:
    merge = Merge(other=event.other, state=event.state)
    first = state.stands.get(merge_round(merge_parents(state.tip.hash, event.other.hash)), 0)
    state = replace(state, merge=replace(merge, first_view=first), offer=event.ready, view=first)
    return begin_view(state, now, first, f"the average with certificate {event.other.number} is computed")


def merge_failed(state: State, event: MergeFailed, now: float) -> Step:
    return back_to_training(state, now, event.reason)
