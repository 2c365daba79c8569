"""ADOPT and FETCH: following a certificate, by adopting its state or downloading it."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.certificates.certificate import OpenCertificate
from protocol.journal import Stuck
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round.offer_phase import forward_leaves
from protocol.round.phase import Phase
from protocol.round.state import RoundState
from protocol.round.transitions import Transition, enter, remember_view, return_to_training

# A download that brought verified bytes gets this much more time: a chunk of 256 KiB takes it at
# 250 kbit/s.
PROGRESS_S = 10.0
# For this many rounds, a download may keep a node out of its rounds while others live at its tip.
# A state that takes longer is downloaded beside the rounds. Anyone may have made its certificate,
# and its bytes may come as slowly as their sender likes.
MISSED_ROUNDS = 3.0
# The time between two tries to fetch a state that this node held before a restart.
RETRY_S = 2.0


def follow(state: RoundState, event: e.CertificateReceived, now: float) -> Transition:
    """Adopt a certificate whose state was computed here; download the state of any other.

    A majority may be done before this node. While this node carries out the certificate's own plan,
    the rest of that work costs less than a download.
    """
    certificate = event.certificate
    if certificate.hash == state.tip.hash:
        return state, []
    if state.spare is not None and certificate.outcome == state.spare:
        return adopt(state, certificate, now)
    if state.target is not None and state.target.hash == certificate.hash:
        return state, []
    nearly = (
        state.phase in {Phase.SCATTER, Phase.REDUCE}
        and state.plan is not None
        and state.plan.digest == certificate.plan.digest
    )
    if nearly and state.target is None:
        deadline = min(state.deadline, now + state.context.manifest.round.vote_s)
        return replace(state, target=certificate, deadline=deadline), []
    return fetch(state, certificate, now)


def follow_newer(state: RoundState, event: e.CertificateReceived, now: float) -> Transition:
    """Follow a newer certificate than the one whose state is being downloaded."""
    target = state.target
    if target is not None and event.certificate.outcome.number <= target.outcome.number:
        return state, []
    return follow(state, event, now)


def adopt(state: RoundState, certificate: OpenCertificate, now: float) -> Transition:
    """Adopt the state in the spare buffer."""
    reason = f"certificate {certificate.outcome.number} names the state computed here"
    state, actions = enter(state, Phase.ADOPT, now, reason, target=certificate)
    return state, [
        *actions,
        a.AuditReducers(certificate=certificate, disputed=False),
        a.AdoptCertificate(certificate=certificate),
    ]


def fetch(state: RoundState, certificate: OpenCertificate, now: float) -> Transition:
    """Download the certificate's state.

    Training goes on; this node leaves the rounds after the old tip. A state whose download does not
    begin or stalls is given up, since anyone may have made its certificate. A newer certificate in
    place of an older one gives no more time: there may be any number of them.
    """
    since = state.entered if state.phase is Phase.FETCH else now
    disputed = state.spare is not None and state.spare.inclusion == certificate.outcome.inclusion
    state, actions = enter(
        state,
        Phase.FETCH,
        now,
        f"this node lacks the state of certificate {certificate.outcome.number}; downloading it",
        deadline=now + state.context.manifest.round.ready_s,
        target=certificate,
        spare=None,
    )
    state = replace(state, entered=since)
    state = replace(state, deadline=_bounded(state, state.deadline))
    return state, [
        a.AuditReducers(certificate=certificate, disputed=disputed),
        a.AbandonExchange(),
        *actions,
        a.ResumeTraining(),
        a.FetchState(certificate=certificate),
    ]


def recovery_found(state: RoundState, event: e.RecoveryFound, now: float) -> Transition:
    """Leave this branch for the certificate from which the run's owner goes on."""
    state = remember_view(state)
    reason = (
        f"the run's owner goes on from certificate {event.tip.number}; this node leaves"
        f" certificate {state.tip.number}"
    )
    state, actions = enter(state, Phase.ADOPT, now, reason, merge=None, spare=None, target=None)
    return state, [a.AbandonExchange(), *actions, a.Recover(tip=event.tip)]


def recovery_failed(state: RoundState, event: e.RecoveryFailed, now: float) -> Transition:
    """Train on, and look for the recovery's state again later."""
    if state.target is not None:
        return state, []
    return return_to_training(state, now, event.reason)


def live_in_fetch(state: RoundState, event: e.LivePeersChanged, now: float) -> Transition:
    """Update the live peers: with any at this tip, there are rounds to return to."""
    came = event.live - state.live
    after = replace(
        state,
        live=event.live,
        avoided=event.avoided,
        unreachable=event.unreachable,
        lost=state.lost - came,
    )
    return after, forward_leaves(after, came)


def state_bytes_received(state: RoundState, event: e.StateBytesReceived, now: float) -> Transition:
    """Wait longer for a state whose bytes arrive."""
    if state.target is None or event.certificate != state.target.hash:
        return state, []
    deadline = max(state.deadline, _bounded(state, now + PROGRESS_S))
    return replace(state, deadline=deadline), []


def _bounded(state: RoundState, deadline: float) -> float:
    """The deadline of FETCH, bounded where other nodes live at this tip.

    A node alone at its tip has no rounds to return to.
    """
    ready_s = state.context.manifest.round.ready_s
    most = state.entered + MISSED_ROUNDS * (state.round_s + ready_s)
    return min(deadline, most) if state.live - state.lost else deadline


def _waits_for_return(state: RoundState, now: float) -> bool:
    """Whether this node held the target's state before a restart, and still waits for it."""
    target, returning = state.target, state.context.returning
    return target is not None and returning is not None and returning.awaited(target.hash, now)


def state_received(state: RoundState, event: e.StateReceived, now: float) -> Transition:
    """Adopt a downloaded state.

    In FETCH this node waits for it. In any other phase, the node had gone on without it.
    """
    if event.tip != state.tip.hash or not event.ahead:
        # This node moved on, or gave up the merge that needed the state.
        return state, []
    certificate = event.certificate
    reason = f"the state of certificate {certificate.outcome.number} has arrived"
    closing: list[a.Action] = (
        []
        if state.phase is Phase.FETCH
        else [a.AuditReducers(certificate=certificate, disputed=False), a.AbandonExchange()]
    )
    state, actions = enter(state, Phase.ADOPT, now, reason, target=certificate)
    adopting = a.AdoptCertificate(certificate=certificate, downloaded=True)
    return state, [*closing, *actions, adopting]


def state_unavailable(state: RoundState, event: e.StateUnavailable, now: float) -> Transition:
    """Train on without a state that no peer served."""
    if state.target is None or event.certificate != state.target.hash:
        return state, []
    if _waits_for_return(state, now):
        return replace(state, deadline=now + RETRY_S), []
    missed_s = now - state.entered
    reason = f"training on from certificate {state.tip.number}: {event.reason}"
    state, actions = return_to_training(state, now, reason)
    return state, [a.GiveUpState(certificate=event.certificate, missed_s=missed_s), *actions]


def fetch_overdue(state: RoundState, event: e.DeadlinePassed, now: float) -> Transition:
    """Train on without a state whose download stalled.

    The download goes on beside the rounds. Should the state's holders return on a branch of their
    own, this node meets and merges it like any other.
    """
    target = state.target
    assert target is not None
    if _waits_for_return(state, now):
        return replace(state, deadline=now + RETRY_S), [a.FetchState(certificate=target)]
    missed_s = now - state.entered
    reason = (
        f"training on from certificate {state.tip.number}: "
        f"the state of certificate {target.outcome.number} does not arrive"
    )
    state, actions = return_to_training(state, now, reason)
    return state, [
        a.GiveUpState(certificate=target.hash, missed_s=missed_s),
        a.RecordEvent(event=Stuck(reason=reason)),
        *actions,
    ]
