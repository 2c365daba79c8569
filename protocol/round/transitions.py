"""Entering phases: how a node moves to a phase, returns to training, or is left out."""

from __future__ import annotations

import math
from typing import Any

from msgspec.structs import replace

from protocol.contribution.offer import NOTHING
from protocol.identity import PeerId
from protocol.journal import Alone, PhaseEntered
from protocol.messages.base import Signed
from protocol.messages.offer import Ready
from protocol.ports.disk import VIEW_RECORDS_KEPT
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round.phase import Phase
from protocol.round.state import LeaderState, RoundState

Transition = tuple[RoundState, list[a.Action]]

PEERS_KEPT = 256
"""The peers whose offers and withdrawals a node keeps: four times the largest group.

Other senders send again in the next view.
"""


def enter(
    state: RoundState,
    phase: Phase,
    now: float,
    reason: str,
    *,
    deadline: float = math.inf,
    **changes: Any,
) -> Transition:
    """Move to a phase and record why."""
    moved = replace(state, phase=phase, deadline=deadline, entered=now, **changes)
    return moved, [
        a.RecordEvent(
            event=PhaseEntered(
                number=state.number, view=moved.view, phase=phase.value, reason=reason
            )
        )
    ]


def note_lost(state: RoundState, event: e.PeerLost, now: float) -> Transition:
    """Remember that a peer was lost."""
    return replace(state, lost=state.lost | {event.peer}), []


def note_withdrawal(state: RoundState, event: e.WithdrawalReceived, now: float) -> Transition:
    """Remember that a member withdrew from a plan; the plan itself may arrive later."""
    if event.peer not in state.withdrawn and len(state.withdrawn) >= PEERS_KEPT:
        return state, []
    withdrawn = {**state.withdrawn, event.peer: event.withdrawal.plan}
    return replace(state, withdrawn=withdrawn), []


def keep_ready(state: RoundState, peer: PeerId, entry: tuple[Signed, Ready]) -> RoundState:
    """Keep a peer's latest offer for this view or a later one; drop offers for earlier views."""
    kept = {known: old for known, old in state.readies.items() if old[1].view >= state.view}
    if (peer in kept or len(kept) < PEERS_KEPT) and (
        peer not in kept or kept[peer][1].view <= entry[1].view
    ):
        kept[peer] = entry
    return replace(state, readies=kept)


def training_deadline(state: RoundState, now: float, age_s: float = 0.0) -> float:
    """When local training ends; infinity when the manifest counts steps."""
    counted = state.context.manifest.round.steps
    return math.inf if counted else now + max(state.round_s - age_s, 0.0)


def train_alone(state: RoundState, now: float, why: str = "") -> Transition:
    """Train on, because no other node is ready at the round's end, or no quorum of voters is here.

    Such a node certifies nothing. It keeps its work as the next offer. `why` says what is missing,
    where it is not another node.
    """
    if state.merge is not None:
        return return_to_training(state, now, why or "no other node takes part in the merge")
    least = state.context.manifest.group.min_peers
    offer = state.offer
    # An offer that was sent is repeated unchanged, while the samples drawn grow.
    pending = max(offer.samples, offer.trajectory.drawn) if offer else 0
    missing = why or f"a certificate needs {least} members and no other node is ready"
    reason = f"{missing}; this node keeps its work for the next offer"
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
    alone = Alone(number=state.number, samples_pending=pending, reason=reason)
    return state, [a.RecordEvent(event=alone), *actions, a.ResumeTraining()]


def train_again(state: RoundState, now: float, reason: str) -> Transition:
    """Train once more, because no member has an offer; the members meet in the next view."""
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
    return state, [*actions, a.ResumeTraining()]


def return_to_training(state: RoundState, now: float, reason: str) -> Transition:
    """Train on this node's own branch after a merge or a download that failed.

    The node will meet the other branch again.
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
    return state, [a.AbandonExchange(), *actions, a.ResumeTraining()]


def remember_view(state: RoundState) -> RoundState:
    """Record the view of a round that is left for another.

    When the node takes the round up again, it starts in a view in which it has not scattered or
    voted.
    """
    if state.phase is Phase.MERGE:
        # MERGE is in no view of any round; the round that was left for it is recorded already.
        return state
    unused = state.phase in {Phase.TRAIN, Phase.OFFER, Phase.READY}
    next_view = max(
        state.view_records.get(state.parent, 0), state.view if unused else state.view + 1
    )
    others = [record for record in state.view_records.items() if record[0] != state.parent]
    kept = dict(others[1 - VIEW_RECORDS_KEPT :])
    return replace(state, view_records={**kept, state.parent: next_view})


def watch(state: RoundState, now: float, reason: str) -> Transition:
    """Watch for the certificate of others that go on without this node.

    The node waits as long as their round may take.
    """
    rules = state.context.manifest.round
    timeout_s = rules.scatter_s + rules.gather_s + 2 * rules.vote_s
    state, actions = enter(state, Phase.WATCH, now, reason, deadline=now + timeout_s)
    return state, [a.AbandonExchange(), *actions]
