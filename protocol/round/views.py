"""How a view begins and ends: entering a phase, passing over a leader, sending the offer to the
next one.
"""

from __future__ import annotations

import math
from typing import Any

from msgspec.structs import replace

from protocol.certificates.leader_order import leader_of
from protocol.contribution.offer import NOTHING
from protocol.identity import PeerId, short
from protocol.journal import Alone, PhaseEntered, ViewPassed
from protocol.messages.base import Signed
from protocol.messages.offer import Ready
from protocol.ports.disk import VIEW_RECORDS_KEPT
from protocol.round.actions import (
    AbandonExchange,
    Action,
    Forward,
    RecordEvent,
    ResumeTraining,
    Send,
)
from protocol.round.events import PeerLost, WithdrawalReceived
from protocol.round.phase import Phase
from protocol.round.state import LeaderState, RoundState

Step = tuple[RoundState, list[Action]]

FOLLOWER_PATIENCE = 2.0
"""A follower waits this many times as long for the leader as the leader waits for followers: the leader's own wait, and as much
again for its clock having started later and the plan's way back."""

MERGE_PATIENCE = 2
"""Turns through all leaders before a merge is given up and training goes on: whoever could lead it had two chances."""

PASSED = 2
"""Leaders of the views before that are not waited for. Not more: where all took turns in vain, a plan would wait for nobody."""

READIES_KEPT = 256
"""Peers whose offers are kept: four times the largest group. The others' senders send again in the next view."""


def enter(
    state: RoundState,
    phase: Phase,
    now: float,
    reason: str,
    *,
    deadline: float = math.inf,
    **changes: Any,
) -> Step:
    """Move to a phase, and say why."""
    moved = replace(state, phase=phase, deadline=deadline, entered=now, **changes)
    return moved, [
        RecordEvent(
            event=PhaseEntered(
                number=state.number, view=moved.view, phase=phase.value, reason=reason
            )
        )
    ]


def note_lost(state: RoundState, event: PeerLost, now: float) -> Step:
    return replace(state, lost=state.lost | {event.peer}), []


def note_withdrawal(state: RoundState, event: WithdrawalReceived) -> RoundState:
    """A member takes no part in a plan, which may come here only later."""
    if event.peer not in state.withdrawn and len(state.withdrawn) >= READIES_KEPT:
        return state
    return replace(state, withdrawn={**state.withdrawn, event.peer: event.withdrawal.plan})


def withdrawal_received(state: RoundState, event: WithdrawalReceived, now: float) -> Step:
    return note_withdrawal(state, event), []


def begin_view(state: RoundState, now: float, view: int, reason: str) -> Step:
    """Send the offer to the leader of `view`, or of the later one where half of the others wait
    already, passing over candidates that are known not to be there.
    """
    assert state.offer is not None
    here = (state.live - state.lost) | {state.context.me}
    # Their offers came while this node was still busy with an earlier view. Without looking at them
    # two nodes chase each other for ever: each waits in a view that the other left 50 ms before
    # (seen with two real nodes, 36 views long).
    if (later := later_view(state, view)) is not None:
        reason += f"; going to view {later}, where others wait"
        view = later
    order = state.leader_order
    skipped: list[PeerId] = []
    while (
        (leader := leader_of(order, view)) not in here or _is_beyond(state, leader, view)
    ) and len(skipped) < len(order):
        skipped.append(leader)
        view += 1
    if skipped:
        reason += f"; passed over {', '.join(short(peer) for peer in dict.fromkeys(skipped))}, not connected or in a later view"
    # Others may have noticed before us that a leader is dead, and took us along: it would be waited
    # for until the view's end (3 s, seen with a stopped leader of four). Should it live, it comes
    # by itself, or its work waits a round.
    passed_over = frozenset(
        leader_of(order, earlier) for earlier in range(max(state.view, view - PASSED), view)
    )
    # The leaders of the views before that have our offer to them must not plan with it: nobody
    # would find us there.
    left = (
        tuple(sorted(state.offered_to - {leader, state.context.me} - state.lost))
        if view > state.view
        else ()
    )
    waits = state.context.manifest.round.ready_s
    leads = leader == state.context.me
    state, actions = enter(
        state,
        Phase.READY,
        now,
        f"{reason}; {'leading' if leads else 'led by ' + short(leader)}",
        deadline=now + (waits if leads else FOLLOWER_PATIENCE * waits),
        view=view,
        passed_over=passed_over,
        offered_to=frozenset({leader}),
        plan=None,
        plan_signed=None,
        inclusion=None,
        inclusion_signed=None,
        held_contributors=frozenset(),
        hold_reported=False,
        results=frozenset(),
        inquired=False,
        leader_state=LeaderState(),
    )
    assert state.offer is not None
    telling = [Send(to=left, message=replace(state.offer, view=view))] if left else []
    return state, [*actions, *_call_on(state, leader), *telling]


def _is_beyond(state: RoundState, peer: PeerId, view: int) -> bool:
    """Whether a peer is known to be in a later view than `view`: it leads that one no more."""
    entry = state.readies.get(peer)
    return entry is not None and entry[1].view > view


def later_view(state: RoundState, view: int) -> int | None:
    """The first view after `view` that one of the others is in, when half of them or more are in
    later ones.
    """
    others = state.live - state.lost
    ahead = [
        ready.view
        for peer, (_, ready) in state.readies.items()
        if peer in others and ready.view > view
    ]
    return min(ahead) if ahead and 2 * len(ahead) >= len(others) else None


def _call_on(state: RoundState, leader: PeerId) -> list[Action]:
    """The offer, and the vote of an earlier view: a leader that comes to hold a majority for it
    publishes that certificate.
    """
    assert state.offer is not None
    actions: list[Action] = [Send(to=(leader,), message=replace(state.offer, view=state.view))]
    if state.vote is not None:
        actions.append(Send(to=(leader,), message=state.vote))
    return actions


def follow_order(state: RoundState) -> Step:
    """At genesis the order changes as peers become known: the offer goes to the new leader as well,
    in the same view.
    """
    if state.phase is not Phase.READY or state.leader in state.offered_to or state.offer is None:
        return state, []
    leader = state.leader
    state = replace(state, offered_to=state.offered_to | {leader})
    return state, _call_on(state, leader)


def pass_view(state: RoundState, now: float, reason: str) -> Step:
    """This view came to nothing: the next leader's turn, with the same offer.

    A merge that came to nothing for long is given up.
    """
    tried = state.view + 1 - (state.merge.first_view if state.merge else 0)
    if state.merge is not None and tried > MERGE_PATIENCE * len(state.leader_order):
        return back_to_training(
            state,
            now,
            f"the merge came to nothing in {tried} views, the last time because: {reason}",
        )
    note = RecordEvent(event=ViewPassed(number=state.number, view=state.view, reason=reason))
    # The members that follow this plan need not wait for its deadline: our offer to a later view
    # says that it is over, or over without us.
    carried_out = state.plan is not None and (
        state.leads or state.phase in {Phase.SCATTER, Phase.REDUCE}
    )
    members = state.plan.members if state.plan is not None and carried_out else ()
    state, actions = begin_view(state, now, state.view + 1, reason)
    assert state.offer is not None
    others = tuple(peer for peer in members if peer not in state.offered_to | {state.context.me})
    telling = [Send(to=others, message=replace(state.offer, view=state.view))] if others else []
    return state, [AbandonExchange(), note, *actions, *telling]


def go_alone(state: RoundState, now: float) -> Step:
    """The round's end came and nobody else is there.

    A node alone certifies nothing; it trains on and keeps what it learned.
    """
    if state.merge is not None:
        return back_to_training(state, now, "nobody else takes part in the merge")
    manifest = state.context.manifest
    offer = state.offer
    # An offer that was given out is repeated as it was, while what this node drew grows.
    pending = max(offer.samples, offer.trajectory.drawn) if offer else 0
    reason = f"a certificate takes {manifest.group.min_peers} members, and no other is here that is ready; what was learned is kept as the next offer"
    state, actions = enter(
        state,
        Phase.TRAIN,
        now,
        reason,
        deadline=training_deadline(state, now),
        offer=None,
        contribution=NOTHING,
        offered_to=frozenset(),
        leader_state=LeaderState(),
    )
    return state, [
        RecordEvent(event=Alone(number=state.number, samples_pending=pending, reason=reason)),
        *actions,
        ResumeTraining(),
    ]


def train_again(state: RoundState, now: float, reason: str) -> Step:
    """A round of empty offers makes no certificate: everybody trains once more, and meets in the
    next view.
    """
    state, actions = enter(
        state,
        Phase.TRAIN,
        now,
        reason,
        deadline=training_deadline(state, now),
        view=state.view + 1,
        offer=None,
        contribution=NOTHING,
        offered_to=frozenset(),
        leader_state=LeaderState(),
    )
    return state, [*actions, ResumeTraining()]


def back_to_training(state: RoundState, now: float, reason: str) -> Step:
    """Back to training on our own branch, from a merge or a download that came to nothing; the
    other branch will be met again.
    """
    state = remember_view(state)
    state, actions = enter(
        state,
        Phase.TRAIN,
        now,
        reason,
        deadline=training_deadline(state, now),
        view=state.view_records.get(state.tip.hash, 0),
        merge=None,
        offer=None,
        contribution=NOTHING,
        spare=None,
        plan=None,
        offered_to=frozenset(),
        target=None,
        merge_target=None,
    )
    return state, [AbandonExchange(), *actions, ResumeTraining()]


def remember_view(state: RoundState) -> RoundState:
    """The round is left for another: whenever it is taken up again, it is in no view in which this
    node may have scattered or voted.
    """
    if state.phase is Phase.MERGE:
        # In no view of any round: the one that was left for it is remembered already.
        return state
    unused = state.phase in {Phase.TRAIN, Phase.OFFER, Phase.READY}
    next_view = max(
        state.view_records.get(state.parent, 0), state.view if unused else state.view + 1
    )
    kept = [
        (parent, view) for parent, view in state.view_records.items() if parent != state.parent
    ][1 - VIEW_RECORDS_KEPT :]
    return replace(state, view_records={**dict(kept), state.parent: next_view})


def training_deadline(state: RoundState, now: float, age_s: float = 0.0) -> float:
    """When local training ends: never by time when the manifest counts steps."""
    rules = state.context.manifest.round
    return math.inf if rules.steps else now + max(rules.seconds - age_s, 0.0)


def keep_ready(state: RoundState, peer: PeerId, entry: tuple[Signed, Ready]) -> RoundState:
    """Remember a peer's latest offer, to this view or a later one; what earlier views were offered
    is over.
    """
    kept = {known: old for known, old in state.readies.items() if old[1].view >= state.view}
    if (peer in kept or len(kept) < READIES_KEPT) and (
        peer not in kept or kept[peer][1].view <= entry[1].view
    ):
        kept[peer] = entry
    return replace(state, readies=kept)


def left_out(state: RoundState, now: float, reason: str) -> Step:
    """Others go on without us: watch for their certificate for as long as their round may take."""
    rules = state.context.manifest.round
    patience = rules.scatter_s + rules.gather_s + 2 * rules.vote_s
    state, actions = enter(state, Phase.WATCH, now, reason, deadline=now + patience)
    return state, [AbandonExchange(), *actions]


def resend_plan(state: RoundState, peer: PeerId) -> list[Action]:
    """An offer that came too late is answered with the plan, so that its sender need not wonder."""
    return [Forward(to=(peer,), signed=state.plan_signed)] if state.plan_signed is not None else []
