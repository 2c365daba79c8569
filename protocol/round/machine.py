"""The rules of a round as one transition table.

Theory of operation
-------------------

A round turns the work of several nodes into one certificate. Its parent is the certificate (or the
two certificates) before it. A round has views 0, 1, 2, ...; each view has a leader, drawn by hash
from the members of the parent. In runs of rules 4 the voters lead in turn, and a quorum of voters
(`quorum.py`) stands for what is called a majority here.

1.  TRAIN, OFFER. A node trains until the round's end and makes an offer of what it learned.
2.  READY. The offer goes to the view's leader. A leader that is silent is passed over, and the same
    offer goes to the leader of the next view.
3.  SCATTER. The leader's plan makes a node a member. It sends every reducer its slice and reports
    which contributions it holds, until the leader's inclusion says whose contributions count.
4.  REDUCE. Members sum slices, gather results and compute the outer step.
5.  VOTE. Members vote for the state that came out. Votes of a majority of the plan, together with
    the plan and the inclusion, are a certificate.
6.  ADOPT, FETCH. A node that computed the certified state adopts it. Any other node downloads it.

A node that a plan or an inclusion leaves out watches for the certificate (WATCH). A node that meets
another branch of the run averages both states (MERGE) and takes part in a round with two parents,
which has nothing to scatter.

Guarantees
----------

- A failure ends a view, never the round: offers and votes are kept.
- A node scatters and votes at most once in a view, also across a restart. It makes durable that it
  acts in the view before it does so (`PersistView`).
- A node never returns to an earlier view of a round.
- Every phase but OFFER, ADOPT and MERGE's average ends by a deadline at the latest.

`TABLE` is the whole machine. A phase ignores the events for which the table has no entry. A handler
that leads to a phase outside its entry is a bug of this program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace

from protocol.certificates.tip import Tip
from protocol.digest import Digest
from protocol.errors import InvariantBroken
from protocol.identity import PeerId
from protocol.membership.plan_check import leave_fault
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round import (
    exchange_phases,
    fetch_phase,
    merge_phase,
    offer_phase,
    ready_phase,
    vote_phase,
)
from protocol.round.phase import Phase
from protocol.round.state import Notices, RoundState, RunContext
from protocol.round.transitions import (
    Transition,
    enter,
    note_lost,
    note_withdrawal,
    training_deadline,
)


def begin(
    context: RunContext,
    tip: Tip,
    now: float,
    *,
    live: frozenset[PeerId] = frozenset(),
    age_s: float = 0.0,
    view_records: Mapping[Digest, int] = MappingProxyType({}),
    full_since: float | None = None,
    notices: Notices | None = None,
) -> RoundState:
    """The state of a node that holds the anchor of `tip` and trains.

    Args:
        context: what stays the same during the run.
        tip: the parent of the round.
        now: monotonic seconds.
        live: the other live nodes at this tip.
        age_s: for how long the other nodes have trained already.
        view_records: for each parent, the first view in which this node has not acted.
        full_since: when this node last adopted a full certificate; None for now.
        notices: what this node can list in a plan of rules 4.
    """
    state = RoundState(
        context=context,
        tip=tip,
        phase=Phase.TRAIN,
        deadline=math.inf,
        live=live,
        view=view_records.get(tip.hash, 0),
        view_records=view_records,
        began=now,
        full_since=now if full_since is None else full_since,
        notices=notices or Notices(),
    )
    return replace(state, deadline=training_deadline(state, now, age_s))


def certificate_adopted(state: RoundState, event: e.CertificateAdopted, now: float) -> Transition:
    """Begin the next round."""
    fresh = begin(
        state.context,
        event.tip,
        now,
        age_s=event.age_s,
        view_records=state.view_records,
        full_since=_waits_since(state, event),
        notices=_notices_after(state, event),
    )
    return enter(
        fresh,
        Phase.TRAIN,
        now,
        f"training for round {fresh.number} from certificate {event.tip.number}",
        deadline=fresh.deadline,
    )


def _waits_since(state: RoundState, event: e.CertificateAdopted) -> float | None:
    """From when on the grace counts after a certificate; None for now."""
    if event.patient:
        return -math.inf
    return None if event.full else state.full_since


def _notices_after(state: RoundState, event: e.CertificateAdopted) -> Notices:
    """What is left to list after a certificate, which may have listed some of it."""
    record, notices = event.tip.record, state.notices
    if record is None:
        return notices
    return replace(
        notices,
        parent_votes=event.votes,
        leaves={
            peer: leave
            for peer, leave in notices.leaves.items()
            if not leave_fault(leave, record, state.context.run)
        },
    )


def noted(state: RoundState, event: e.LeaveReceived | e.OwnerRevoked) -> RoundState:
    """Keep a leave or the owner's revocations for the plans that this node leads."""
    notices = state.notices
    if isinstance(event, e.OwnerRevoked):
        return replace(state, notices=replace(notices, revocations=event.revocations))
    record, signed = state.tip.record, event.signed
    if record is None or leave_fault(signed, record, state.context.run):
        return state
    # A record with a vote for each sender bounds them.
    kept = {peer: leave for peer, leave in notices.leaves.items() if peer in record.voters}
    return replace(state, notices=replace(notices, leaves={**kept, signed.peer: signed}))


Handler = Callable[[RoundState, Any, float], Transition]
P = Phase
# The end of a view leads to the next view, or to training alone.
_VIEW = {P.READY, P.TRAIN}
_MOVE = {P.ADOPT, P.FETCH}

TABLE: Mapping[tuple[Phase, type[e.Event]], tuple[Handler, set[Phase]]] = {
    (P.TRAIN, e.DeadlinePassed): (offer_phase.end_training, {P.OFFER}),
    (P.TRAIN, e.TrainingFinished): (offer_phase.end_training, {P.OFFER}),
    (P.TRAIN, e.ReadyReceived): (offer_phase.ready_received, {P.TRAIN, P.OFFER}),
    (P.TRAIN, e.LivePeersChanged): (offer_phase.live_changed, {P.TRAIN}),
    (P.TRAIN, e.PeerLost): (note_lost, {P.TRAIN}),
    (P.TRAIN, e.PlanReceived): (ready_phase.plan_missed, {P.TRAIN}),
    (P.TRAIN, e.WithdrawalReceived): (note_withdrawal, {P.TRAIN}),
    (P.TRAIN, e.RecoveryFound): (fetch_phase.recovery_found, {P.ADOPT}),
    (P.TRAIN, e.CertificateReceived): (fetch_phase.follow, {P.TRAIN, *_MOVE}),
    (P.TRAIN, e.StateReceived): (fetch_phase.state_received, {P.TRAIN, P.ADOPT}),
    (P.TRAIN, e.ForkFound): (merge_phase.fork_found, {P.MERGE}),
    (P.OFFER, e.OfferMade): (offer_phase.offer_made, _VIEW),
    (P.OFFER, e.ReadyReceived): (offer_phase.ready_received, {P.OFFER}),
    (P.OFFER, e.LivePeersChanged): (offer_phase.live_changed, {P.OFFER}),
    (P.OFFER, e.PeerLost): (note_lost, {P.OFFER}),
    (P.OFFER, e.PlanReceived): (ready_phase.plan_missed, {P.OFFER}),
    (P.OFFER, e.WithdrawalReceived): (note_withdrawal, {P.OFFER}),
    (P.OFFER, e.CertificateReceived): (fetch_phase.follow, {P.OFFER, *_MOVE}),
    (P.OFFER, e.StateReceived): (fetch_phase.state_received, {P.OFFER, P.ADOPT}),
    (P.READY, e.DeadlinePassed): (ready_phase.ready_overdue, _VIEW),
    (P.READY, e.ReadyReceived): (offer_phase.ready_received, {P.READY}),
    (P.READY, e.LivePeersChanged): (offer_phase.live_changed, {P.READY}),
    (P.READY, e.PeerLost): (offer_phase.lost_in_ready, _VIEW),
    (P.READY, e.PlanReceived): (
        ready_phase.plan_received,
        {P.READY, P.SCATTER, P.WATCH, P.TRAIN},
    ),
    (P.READY, e.WithdrawalReceived): (note_withdrawal, {P.READY}),
    (P.READY, e.VoteReceived): (vote_phase.vote_received, {P.READY, P.ADOPT}),
    (P.READY, e.ViewNotPersisted): (ready_phase.view_not_persisted, {P.WATCH}),
    (P.READY, e.RecoveryFound): (fetch_phase.recovery_found, {P.ADOPT}),
    (P.READY, e.CertificateReceived): (fetch_phase.follow, {P.READY, *_MOVE}),
    (P.READY, e.StateReceived): (fetch_phase.state_received, {P.READY, P.ADOPT}),
    (P.READY, e.ForkFound): (merge_phase.fork_found, {P.READY, P.MERGE}),
    (P.SCATTER, e.DeadlinePassed): (
        exchange_phases.scatter_overdue,
        {P.SCATTER, P.FETCH, *_VIEW},
    ),
    (P.SCATTER, e.ReadyReceived): (exchange_phases.ready_received, {P.SCATTER, *_VIEW}),
    (P.SCATTER, e.PlanReceived): (ready_phase.plan_missed, {P.SCATTER}),
    (P.SCATTER, e.WithdrawalReceived): (
        exchange_phases.withdrawal_received,
        {P.SCATTER, *_VIEW},
    ),
    (P.SCATTER, e.LivePeersChanged): (offer_phase.live_changed, {P.SCATTER}),
    (P.SCATTER, e.PeerLost): (exchange_phases.peer_lost, {P.SCATTER, *_VIEW}),
    (P.SCATTER, e.ContributionsReceived): (exchange_phases.contributions_received, {P.SCATTER}),
    (P.SCATTER, e.HoldReportReceived): (
        exchange_phases.hold_report_received,
        {P.SCATTER, P.READY},
    ),
    (P.SCATTER, e.InclusionReceived): (
        exchange_phases.inclusion_received,
        {P.SCATTER, P.REDUCE, P.VOTE, P.WATCH, *_MOVE},
    ),
    (P.SCATTER, e.VoteReceived): (vote_phase.vote_received, {P.SCATTER, P.ADOPT}),
    (P.SCATTER, e.ViewNotPersisted): (ready_phase.view_not_persisted, {P.WATCH}),
    (P.SCATTER, e.CertificateReceived): (fetch_phase.follow, {P.SCATTER, *_MOVE}),
    (P.SCATTER, e.StateReceived): (fetch_phase.state_received, {P.SCATTER, P.ADOPT}),
    (P.REDUCE, e.DeadlinePassed): (exchange_phases.reduce_overdue, {P.REDUCE, P.FETCH, P.READY}),
    (P.REDUCE, e.ReadyReceived): (exchange_phases.ready_received, {P.REDUCE, P.READY}),
    (P.REDUCE, e.PlanReceived): (ready_phase.plan_missed, {P.REDUCE}),
    (P.REDUCE, e.WithdrawalReceived): (exchange_phases.withdrawal_received, {P.REDUCE, P.READY}),
    (P.REDUCE, e.LivePeersChanged): (offer_phase.live_changed, {P.REDUCE}),
    (P.REDUCE, e.PeerLost): (exchange_phases.peer_lost, {P.REDUCE, P.READY}),
    (P.REDUCE, e.InclusionReceived): (exchange_phases.inclusion_received, {P.REDUCE, P.WATCH}),
    (P.REDUCE, e.ResultReceived): (exchange_phases.result_received, {P.REDUCE}),
    (P.REDUCE, e.OutcomeComputed): (vote_phase.cast, {P.REDUCE, P.VOTE, *_MOVE}),
    (P.REDUCE, e.VoteReceived): (vote_phase.vote_received, {P.REDUCE}),
    (P.REDUCE, e.CertificateReceived): (fetch_phase.follow, {P.REDUCE, P.FETCH}),
    (P.REDUCE, e.StateReceived): (fetch_phase.state_received, {P.REDUCE, P.ADOPT}),
    (P.VOTE, e.DeadlinePassed): (vote_phase.vote_overdue, {P.VOTE, *_VIEW}),
    (P.VOTE, e.ReadyReceived): (offer_phase.ready_received, {P.VOTE, P.READY}),
    (P.VOTE, e.LivePeersChanged): (offer_phase.live_changed, {P.VOTE}),
    (P.VOTE, e.PeerLost): (vote_phase.lost_in_vote, {P.VOTE, *_VIEW}),
    (P.VOTE, e.PlanReceived): (ready_phase.plan_missed, {P.VOTE}),
    (P.VOTE, e.WithdrawalReceived): (vote_phase.withdrawn_in_vote, {P.VOTE, *_VIEW}),
    (P.VOTE, e.InclusionReceived): (exchange_phases.serve_inclusion, {P.VOTE}),
    (P.VOTE, e.VoteReceived): (vote_phase.vote_received, {P.VOTE, P.ADOPT, *_VIEW}),
    (P.VOTE, e.CertificateReceived): (fetch_phase.follow, {P.VOTE, *_MOVE}),
    (P.VOTE, e.StateReceived): (fetch_phase.state_received, {P.VOTE, P.ADOPT}),
    (P.WATCH, e.DeadlinePassed): (ready_phase.watch_overdue, _VIEW),
    (P.WATCH, e.ReadyReceived): (offer_phase.ready_received, {P.WATCH}),
    (P.WATCH, e.LivePeersChanged): (offer_phase.live_changed, {P.WATCH}),
    (P.WATCH, e.PeerLost): (note_lost, {P.WATCH}),
    (P.WATCH, e.PlanReceived): (ready_phase.plan_missed, {P.WATCH}),
    (P.WATCH, e.WithdrawalReceived): (note_withdrawal, {P.WATCH}),
    (P.WATCH, e.RecoveryFound): (fetch_phase.recovery_found, {P.ADOPT}),
    (P.WATCH, e.CertificateReceived): (fetch_phase.follow, {P.WATCH, *_MOVE}),
    (P.WATCH, e.StateReceived): (fetch_phase.state_received, {P.WATCH, P.ADOPT}),
    (P.WATCH, e.ForkFound): (merge_phase.fork_found, {P.WATCH, P.MERGE}),
    (P.MERGE, e.MergePrepared): (merge_phase.merge_prepared, {P.READY}),
    (P.MERGE, e.DeadlinePassed): (merge_phase.merge_overdue, {P.TRAIN}),
    (P.MERGE, e.StateBytesReceived): (merge_phase.state_bytes_received, {P.MERGE}),
    (P.MERGE, e.StateReceived): (merge_phase.state_received, {P.MERGE}),
    (P.MERGE, e.StateUnavailable): (merge_phase.state_unavailable, {P.MERGE, P.TRAIN}),
    (P.MERGE, e.LivePeersChanged): (offer_phase.live_changed, {P.MERGE}),
    (P.MERGE, e.PeerLost): (note_lost, {P.MERGE}),
    (P.MERGE, e.PlanReceived): (ready_phase.plan_missed, {P.MERGE}),
    (P.MERGE, e.CertificateReceived): (fetch_phase.follow, {P.MERGE, P.FETCH}),
    (P.ADOPT, e.CertificateAdopted): (certificate_adopted, {P.TRAIN}),
    (P.ADOPT, e.RecoveryFailed): (fetch_phase.recovery_failed, {P.ADOPT, P.TRAIN}),
    (P.ADOPT, e.StateUnavailable): (fetch_phase.state_unavailable, {P.ADOPT, P.TRAIN}),
    (P.FETCH, e.LivePeersChanged): (fetch_phase.live_in_fetch, {P.FETCH}),
    (P.FETCH, e.StateBytesReceived): (fetch_phase.state_bytes_received, {P.FETCH}),
    (P.FETCH, e.StateReceived): (fetch_phase.state_received, {P.FETCH, P.ADOPT}),
    (P.FETCH, e.StateUnavailable): (fetch_phase.state_unavailable, {P.FETCH, P.TRAIN}),
    (P.FETCH, e.PlanReceived): (ready_phase.plan_missed, {P.FETCH}),
    (P.FETCH, e.DeadlinePassed): (fetch_phase.fetch_overdue, {P.FETCH, P.TRAIN}),
    (P.FETCH, e.CertificateReceived): (fetch_phase.follow_newer, {P.FETCH}),
}


def step(state: RoundState, event: e.Event, now: float) -> tuple[RoundState, list[a.Action]]:
    """Handle one event.

    The function is pure: the same arguments give the same result.

    Raises:
        InvariantBroken: a handler left the table, or returned to an earlier view.
    """
    if isinstance(event, e.LeaveReceived | e.OwnerRevoked):
        # What a node knows of members concerns no phase.
        return noted(state, event), []
    if isinstance(event, e.VotersReturned):
        # A machine that slept wakes among voters that are about to certify in full. If it were
        # patient, it would follow any two of them first.
        return replace(state, full_since=max(state.full_since, now)), []
    entry = TABLE.get((state.phase, type(event)))
    if entry is None:
        return state, []
    handler, leads_to = entry
    after, actions = handler(state, event, now)
    if after.phase not in leads_to:
        raise InvariantBroken(
            f"{type(event).__name__} in {state.phase.value} led to {after.phase.value}, "
            "which the table does not allow"
        )
    if after.view < state.view and after.parent == state.parent and after.phase is not Phase.MERGE:
        raise InvariantBroken(f"from view {state.view} back to view {after.view}")
    return after, actions
