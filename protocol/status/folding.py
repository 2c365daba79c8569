"""The fold: how each event changes the state behind a status.

Rules. Any events in any order are taken; none raises and none makes the state grow past its bounds. What a peer says of itself is cleaned
here, once, so that nothing downstream has to (numbers finite and within what JSON keeps exact, text printable and short). A certificate
already folded changes nothing. Time comes from the events alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from statistics import median
from typing import Any

from msgspec.structs import replace

from protocol import journal
from protocol.status.figures import clean, finite, natural, whole
from protocol.status.records import KEPT_PEERS, Peer, Point, Round, Sentence
from protocol.status.sentences import say
from protocol.status.state import MAX_NAME_CHARS, MAX_TEXT_CHARS, StatusState

REFUSAL_SILENCE_S = 60.0  # one sentence a minute for each reason: refusals are counted, not narrated
MAX_MEMBERS = 64  # shown of one round; one row has no more
MAX_PHASES = 16  # of one round; there are eight
MAX_ADDRESSES = 32  # of this node: a few for each of its interfaces

_COUNTERS = {"counted": "rounds_counted", "late": "rounds_late", "lost": "rounds_lost", "idle": "rounds_idle"}
_QUIET = (journal.PhaseEntered, journal.TrainingProgress, journal.PeerReport, journal.TrafficReport, journal.CheckpointWritten)
_OF_OTHERS = (journal.PeerRegistered, journal.PeerUp, journal.PeerDown, journal.PeerForgotten, journal.Refused)
_REPEATED = {journal.Alone: "alone", journal.Stuck: "stuck", journal.ChainReport: "chain"}  # said again and again: the newest is enough


def _node_started(state: StatusState, event: journal.NodeStarted) -> None:
    state.you = replace(
        state.you,
        peer=clean(event.peer, MAX_NAME_CHARS),
        name=clean(event.name, MAX_NAME_CHARS),
        role=clean(event.role, MAX_NAME_CHARS),
        version=clean(event.version, MAX_NAME_CHARS),
        addresses=tuple(clean(address, MAX_TEXT_CHARS) for address in event.addresses[:MAX_ADDRESSES]),
        started_at=natural(event.at),
    )
    state.run = replace(
        state.run,
        run=clean(event.run, MAX_NAME_CHARS),
        name=clean(event.run_name, MAX_NAME_CHARS),
        task=clean(event.task, MAX_TEXT_CHARS),
        engine=clean(event.engine, MAX_NAME_CHARS),
    )
    state.min_peers = event.min_peers
    state.stopped = None
    state.peers.pop(event.peer, None)


def _trainer_ready(state: StatusState, event: journal.TrainerReady) -> None:
    state.you = replace(state.you, device=clean(event.device, MAX_TEXT_CHARS))
    state.run = replace(state.run, parameters=whole(event.parameters))
    state.trainer_up, state.trainer_down, state.stuck = True, "", ""


def _trainer_stopped(state: StatusState, event: journal.TrainerStopped) -> None:
    state.you = replace(state.you, worker_restarts=whole(event.restarts), samples_per_second=0.0)
    state.trainer_up, state.trainer_down = False, clean(event.reason, MAX_TEXT_CHARS) or "it gave no reason"


def _phase_entered(state: StatusState, event: journal.PhaseEntered) -> None:
    phase, reason = clean(event.phase, MAX_NAME_CHARS), clean(event.reason, MAX_TEXT_CHARS)
    state.you = replace(state.you, phase=phase, phase_reason=reason)
    state.run = replace(state.run, view=whole(event.view))
    state.working_on = whole(event.number)


def _trained(state: StatusState, event: journal.Trained) -> None:
    samples = whole(event.samples)
    state.you = replace(
        state.you,
        samples_total=whole(state.you.samples_total + samples),
        samples_pending=whole(state.you.samples_pending + samples),
        loss=finite(event.loss) if event.loss is not None else state.you.loss,
    )
    state.stuck = ""
    state.computed_s = natural(state.computed_s + natural(event.seconds))


def _training_progress(state: StatusState, event: journal.TrainingProgress) -> None:
    loss = finite(event.loss)
    state.you = replace(state.you, samples_per_second=natural(event.samples_per_second), loss=loss if loss is not None else state.you.loss)


def _planned(state: StatusState, event: journal.Planned) -> None:
    state.plan = event
    state.alone, state.stuck = False, ""


def _view_passed(state: StatusState, event: journal.ViewPassed) -> None:
    plan = state.plan
    planned = plan.members if plan and (plan.number, plan.view) == (event.number, event.view) else ()
    state.you = replace(state.you, rounds_missed=state.you.rounds_missed + 1)
    missed = Round(
        number=whole(event.number),
        view=whole(event.view),
        certificate="",
        state_digest="",
        at=natural(event.at),
        outcome="missed",
        members=_ids(planned),
        contributors=(),
        samples=0,
        loss=None,
        phase_seconds={},
        reason=clean(event.reason, MAX_TEXT_CHARS),
    )
    state.rounds.appendleft(missed)


def _ids(peers: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(clean(peer, MAX_NAME_CHARS) for peer in peers[:MAX_MEMBERS])


def _is_known(state: StatusState, event: journal.RoundCertified) -> bool:
    certificate = clean(event.certificate, MAX_NAME_CHARS)
    return any(known.certificate == certificate for known in state.rounds if known.outcome != "missed")


def _round_certified(state: StatusState, event: journal.RoundCertified) -> None:
    if _is_known(state, event):
        return
    certificate, state_digest, outcome = (clean(text, MAX_NAME_CHARS) for text in (event.certificate, event.state_digest, event.outcome))
    samples, loss = whole(event.samples), finite(event.loss)
    before = state.newest
    took = natural(event.at - before.at) if before and before.number + 1 == event.number else 0.0
    phases = ((clean(phase, MAX_NAME_CHARS), natural(seconds)) for phase, seconds in event.phase_seconds.items())
    state.rounds.appendleft(
        Round(
            number=whole(event.number),
            view=whole(event.view),
            certificate=certificate,
            state_digest=state_digest,
            at=natural(event.at),
            outcome=outcome,
            members=_ids(event.members),
            contributors=_ids(tuple(share.peer for share in event.shares)),
            samples=samples,
            loss=loss,
            phase_seconds=dict(islice(phases, MAX_PHASES)),
            reason=clean(event.reason, MAX_TEXT_CHARS),
            plan=clean(event.plan, MAX_TEXT_CHARS),
            rows=tuple(whole(size) for size in event.rows[:MAX_MEMBERS]),
            predicted_s=natural(event.predicted_s) if event.predicted_s is not None else None,
        )
    )
    state.newest = state.rounds[0]
    state.reputations.saw(natural(event.at), {share.peer: whole(share.samples) for share in event.shares[:MAX_MEMBERS]})
    run = state.run
    state.run = replace(
        run,
        number=whole(event.number),
        tip=certificate,
        state_digest=state_digest,
        view=0,
        rounds_certified=run.rounds_certified + 1,
        samples_certified=whole(run.samples_certified + samples),
        loss_first=loss if run.loss_first is None else run.loss_first,
        loss=loss if loss is not None else run.loss,
        round_seconds=took if took > 0 else run.round_seconds,
        plan=state.newest.plan or run.plan,
        prediction_error=_prediction_error(state.rounds),
    )
    you = state.you
    if state.newest.phase_seconds and (whole_s := sum(state.newest.phase_seconds.values())) > 0:
        you, state.computed_s = replace(you, computing=min(1.0, state.computed_s / whole_s)), 0.0
    if event.outcome in _COUNTERS:
        counter = _COUNTERS[event.outcome]
        you = replace(you, **{counter: getattr(you, counter) + 1})
    if event.outcome == "counted" or you.role == "observer":
        mine = sum(whole(share.samples) for share in event.shares if share.peer == you.peer)
        you = replace(you, samples_pending=max(0, you.samples_pending - mine), last_counted_at=natural(event.at))
    state.you = you
    if loss is not None:
        state.add_point(Point(number=whole(event.number), at=natural(event.at), samples=state.run.samples_certified, loss=loss))
    state.alone, state.stuck = False, ""


def _prediction_error(rounds: Iterable[Round]) -> float | None:
    """The median, over rounds whose plan predicted their exchange and in which this node took part, of how far off that was, as a share of
    what it took; None without any."""
    errors = [
        abs(one.predicted_s - one.exchange_s) / one.exchange_s for one in rounds if one.predicted_s is not None and one.exchange_s > 0
    ]
    return median(errors) if errors else None


def _round_averaged(state: StatusState, event: journal.RoundAveraged) -> None:
    """No certificate: it shows among the rounds and counts as none of those that are verified or paid."""
    outcome, averaged = clean(event.outcome, MAX_NAME_CHARS), event.outcome == "averaged"
    peers = _ids(tuple(share.peer for share in event.shares))
    phases = ((clean(phase, MAX_NAME_CHARS), natural(seconds)) for phase, seconds in event.phase_seconds.items())
    before = next((known for known in state.rounds if known.outcome == "averaged"), None)
    number, loss = whole(event.number), finite(event.loss)
    state.rounds.appendleft(
        Round(
            number=number,
            view=0,
            certificate="",
            state_digest="",
            at=natural(event.at),
            outcome=outcome,
            members=peers,
            contributors=peers if averaged else (),
            samples=whole(event.samples) if averaged else 0,
            loss=loss,
            phase_seconds=dict(islice(phases, MAX_PHASES)),
            reason=clean(event.reason, MAX_TEXT_CHARS),
        )
    )
    state.alone, state.stuck = False, ""
    if not averaged:
        return
    took = natural(event.at - before.at) if before and before.number + 1 == number else 0.0
    state.run = replace(
        state.run,
        number=number,
        loss_first=loss if state.run.loss_first is None else state.run.loss_first,
        loss=loss if loss is not None else state.run.loss,
        round_seconds=took if took > 0 else state.run.round_seconds,
    )
    state.you = replace(state.you, samples_pending=0)


def _alone(state: StatusState, event: journal.Alone) -> None:
    state.you = replace(state.you, samples_pending=whole(event.samples_pending))
    state.alone = True


def _caught_up(state: StatusState, event: journal.CaughtUp) -> None:
    state.run = replace(state.run, number=max(state.run.number, whole(event.number)))
    state.stuck = ""


def _stuck(state: StatusState, event: journal.Stuck) -> None:
    state.stuck = clean(event.reason, MAX_TEXT_CHARS) or "no reason was given"


def _keep_peer(state: StatusState, peer: Peer) -> None:
    """Put a peer at the young end; when there are too many the one longest unheard of goes, unconnected ones first."""
    state.peers.pop(peer.peer, None)
    if len(state.peers) >= KEPT_PEERS:
        oldest = next((known.peer for known in state.peers.values() if not known.connected), next(iter(state.peers)))
        del state.peers[oldest]
    state.peers[peer.peer] = peer


def _stranger(peer: str) -> Peer:
    return Peer(
        peer=peer,
        name="",
        role="",
        path="",
        address="",
        rtt_s=None,
        number=0,
        tip="",
        phase="",
        samples=0,
        loss=None,
        samples_per_second=0.0,
        device="",
        last_seen=0.0,
        connected=False,
    )


def _peer_up(state: StatusState, event: journal.PeerUp) -> None:
    if event.peer == state.you.peer:
        return
    known = state.peers.get(event.peer) or _stranger(clean(event.peer, MAX_NAME_CHARS))
    address = clean(event.address, MAX_TEXT_CHARS)
    _keep_peer(state, replace(known, path=clean(event.path, 16), address=address, connected=True, last_seen=natural(event.at)))


def _peer_down(state: StatusState, event: journal.PeerDown) -> None:
    known = state.peers.get(event.peer)
    if known is None:
        return
    if not known.tip:  # never sent a beacon: it was a passer-by, not a member
        del state.peers[event.peer]
        return
    state.peers[event.peer] = replace(known, path="", rtt_s=None, connected=False, quality="", quality_reason="")


def _peer_report(state: StatusState, event: journal.PeerReport) -> None:
    if event.peer == state.you.peer:
        return
    rtt_s = finite(event.rtt_s)
    reputation = state.reputations.of(event.peer, natural(event.at))
    peer = Peer(
        peer=clean(event.peer, MAX_NAME_CHARS),
        name=clean(event.name, MAX_NAME_CHARS),
        role=clean(event.role, MAX_NAME_CHARS),
        path=clean(event.path, 16),
        address=clean(event.address, MAX_TEXT_CHARS),
        rtt_s=natural(rtt_s) if rtt_s is not None else None,
        jitter_s=natural(event.jitter_s) if event.jitter_s is not None else None,
        loss_share=natural(event.loss_share, 1.0) if event.loss_share is not None else None,
        bits_per_second=whole(event.bits_per_second),
        quality=clean(event.quality, 16),
        quality_reason=clean(event.quality_reason, MAX_TEXT_CHARS),
        standing=clean(event.standing, 16),
        standing_reason=clean(event.standing_reason, MAX_TEXT_CHARS),
        number=whole(event.number),
        tip=clean(event.tip, MAX_NAME_CHARS),
        phase=clean(event.phase, MAX_NAME_CHARS),
        samples=whole(event.samples),
        loss=finite(event.loss),
        samples_per_second=natural(event.samples_per_second, 1e12),
        device=clean(event.device, MAX_TEXT_CHARS),
        last_seen=natural(event.at),
        connected=bool(event.path),
        registration=known.registration if (known := state.peers.get(event.peer)) else "",
        reputation=reputation.figure,
        pool=reputation.pool,
        alert=reputation.alert,
    )
    _keep_peer(state, peer)


def _peer_forgotten(state: StatusState, event: journal.PeerForgotten) -> None:
    state.peers.pop(event.peer, None)


def _refused(state: StatusState, event: journal.Refused) -> None:
    reason = event.reason if event.reason in state.refusals else "malformed"
    state.refusals[reason] = whole(state.refusals[reason] + whole(event.count))


def _traffic(state: StatusState, event: journal.TrafficReport) -> None:
    state.network = replace(
        state.network,
        connections=whole(event.connections),
        control_sent=whole(event.control_sent),
        control_received=whole(event.control_received),
        bulk_sent=whole(event.bulk_sent),
        bulk_received=whole(event.bulk_received),
    )


def _work_dropped(state: StatusState, event: journal.WorkDropped) -> None:
    dropped = whole(event.samples)
    pending = max(0, state.you.samples_pending - dropped)
    state.you = replace(state.you, samples_pending=pending, samples_dropped=whole(state.you.samples_dropped + dropped))


def _chain_report(state: StatusState, event: journal.ChainReport) -> None:
    _, sentence = say(event)
    state.rewards = sentence


def _peer_registered(state: StatusState, event: journal.PeerRegistered) -> None:
    known = state.peers.get(event.peer)
    if known is not None:
        state.peers[event.peer] = replace(known, registration=clean(event.state, 16))


def _stopped(state: StatusState, event: journal.Stopped) -> None:
    state.stopped = clean(event.reason, MAX_TEXT_CHARS)
    state.you = replace(state.you, phase="stopped", phase_reason=state.stopped, samples_per_second=0.0)


def _nothing(state: StatusState, event: journal.Event) -> None:
    """The event's sentence says it all."""


EFFECTS: dict[type[journal.Event], Callable[[StatusState, Any], None]] = {
    journal.NodeStarted: _node_started,
    journal.TrainerReady: _trainer_ready,
    journal.TrainerStopped: _trainer_stopped,
    journal.PhaseEntered: _phase_entered,
    journal.Trained: _trained,
    journal.TrainingProgress: _training_progress,
    journal.Planned: _planned,
    journal.ViewPassed: _view_passed,
    journal.RoundCertified: _round_certified,
    journal.RoundAveraged: _round_averaged,
    journal.Alone: _alone,
    journal.CaughtUp: _caught_up,
    journal.Stuck: _stuck,
    journal.PeerUp: _peer_up,
    journal.PeerDown: _peer_down,
    journal.PeerReport: _peer_report,
    journal.PeerForgotten: _peer_forgotten,
    journal.Refused: _refused,
    journal.TrafficReport: _traffic,
    journal.WorkDropped: _work_dropped,
    journal.CheckpointWritten: _nothing,
    journal.Warned: _nothing,
    journal.ChainReport: _chain_report,
    journal.PeerRegistered: _peer_registered,
    journal.Stopped: _stopped,
}


def _is_told(state: StatusState, event: journal.Event) -> bool:
    """Whether the event gets a line among the last events."""
    if isinstance(event, _QUIET):
        return False
    if isinstance(event, journal.Refused):
        since = natural(event.at) - state.refusal_said_at.get(event.reason, -REFUSAL_SILENCE_S)
        if 0 <= since < REFUSAL_SILENCE_S:
            return False
        if event.reason in state.refusals:
            state.refusal_said_at[event.reason] = natural(event.at)
    if isinstance(event, journal.RoundCertified):
        return not _is_known(state, event)
    return True


def fold(state: StatusState, event: journal.Event) -> StatusState:
    """Take one event into `state`, and return it. Never raises, never grows past the bounds; about 5 microseconds."""
    if _is_told(state, event):
        level, text = say(event, state.who)
        sentence = Sentence(at=natural(event.at), level=level, text=text)
        state.tell(_REPEATED.get(type(event), ""), sentence, others=isinstance(event, _OF_OTHERS))
    EFFECTS[type(event)](state, event)
    return state
