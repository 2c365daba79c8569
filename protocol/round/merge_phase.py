"""MERGE: meeting another branch; averaging with it is a round of its own, without a scatter."""

from __future__ import annotations

import math

from msgspec.structs import replace

from protocol.certificates.merge import merge_parents, merge_round
from protocol.contribution.offer import NOTHING
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round.fetch_phase import PROGRESS_S
from protocol.round.phase import Phase
from protocol.round.state import PendingMerge, RoundState
from protocol.round.transitions import Transition, enter, remember_view, return_to_training
from protocol.round.views import begin_view


def fork_found(state: RoundState, event: e.ForkFound, now: float) -> Transition:
    """Leave the round and download the other branch: reuniting the run is most urgent."""
    if state.merge is not None and state.merge.other.hash == event.other.hash:
        return state, []
    reason = (
        f"found certificate {event.other.number} of another branch; "
        f"averaging it with certificate {state.tip.number}"
    )
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
    return state, [
        a.AbandonExchange(),
        *actions,
        a.ResumeTraining(),
        a.FetchBranch(other=event.other),
    ]


def state_bytes_received(state: RoundState, event: e.StateBytesReceived, now: float) -> Transition:
    """Wait longer for a state whose bytes arrive."""
    if state.merge_target is None or event.certificate != state.merge_target.hash:
        return state, []
    return replace(state, deadline=max(state.deadline, now + PROGRESS_S)), []


def state_received(state: RoundState, event: e.StateReceived, now: float) -> Transition:
    """Average the other branch's state with this node's."""
    target = state.merge_target
    if target is None or event.certificate.hash != target.hash:
        return state, []
    averaging = replace(state, merge_target=None, deadline=math.inf)
    return averaging, [a.AverageBranches(other=target)]


def merge_prepared(state: RoundState, event: e.MergePrepared, now: float) -> Transition:
    """Begin the merge's round with the averaged state."""
    parents = merge_parents(state.tip.hash, event.other.hash)
    first = state.view_records.get(merge_round(parents), 0)
    merge = PendingMerge(
        other=event.other, state=event.state, first_view=first, preferred=event.preferred
    )
    state = replace(state, merge=merge, offer=event.ready, view=first)
    return begin_view(
        state, now, first, f"the average with certificate {event.other.number} is computed"
    )


def state_unavailable(state: RoundState, event: e.StateUnavailable, now: float) -> Transition:
    """Give the merge up when no peer served the other branch's state."""
    if state.merge_target is None or event.certificate != state.merge_target.hash:
        return state, []
    return _give_up(state, now, event.reason)


def merge_overdue(state: RoundState, event: e.DeadlinePassed, now: float) -> Transition:
    """Give the merge up when the download stalled.

    Rounds on this node's own branch go on. The node will meet the other branch again.
    """
    number = state.merge_target.number if state.merge_target is not None else "?"
    return _give_up(
        state, now, f"the state of certificate {number} of the other branch does not arrive"
    )


def _give_up(state: RoundState, now: float, reason: str) -> Transition:
    other = state.merge_target
    assert other is not None
    state, actions = return_to_training(state, now, reason)
    return state, [a.GiveUpState(certificate=other.hash, merging=True), *actions]
