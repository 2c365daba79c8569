"""How plans, views, certificates and averages change the state behind a status."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from statistics import median

from msgspec.structs import replace

from protocol import journal
from protocol.status.figures import clean, finite, natural, whole
from protocol.status.group_effects import note_groups
from protocol.status.held_out_scores import ScoredRound
from protocol.status.membership import note_membership
from protocol.status.round_points import PHASES, RoundPoint
from protocol.status.run_records import LossPoint, RoundSummary
from protocol.status.state import MAX_NAME_CHARS, MAX_TEXT_CHARS, StatusState
from protocol.status.totals import WHOLE, with_times

MAX_MEMBERS = 64
"""Members of one round that are shown. A group has no more."""

TOGETHER_S = 0.05
"""The least time between two certificates that counts as the length of a round.

A node that was away learns of several at once.
"""

MAX_PHASES = 16
"""Phases of one round. There are eight."""


_COUNTERS = {
    "counted": "rounds_counted",
    "late": "rounds_late",
    "lost": "rounds_lost",
    "idle": "rounds_idle",
}


def planned(state: StatusState, event: journal.Planned) -> None:
    state.plan = event
    state.alone, state.stuck = False, ""


def view_passed(state: StatusState, event: journal.ViewPassed) -> None:
    plan = state.plan
    planned = (
        plan.members if plan and (plan.number, plan.view) == (event.number, event.view) else ()
    )
    state.you = replace(state.you, rounds_missed=state.you.rounds_missed + 1)
    missed = RoundSummary(
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
    state.failed_tries = whole(state.failed_tries + 1)


def _ids(peers: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(clean(peer, MAX_NAME_CHARS) for peer in peers[:MAX_MEMBERS])


def is_known(state: StatusState, event: journal.RoundCertified) -> bool:
    certificate = clean(event.certificate, MAX_NAME_CHARS)
    return any(
        known.certificate == certificate for known in state.rounds if known.outcome != "missed"
    )


def round_certified(state: StatusState, event: journal.RoundCertified) -> None:
    if is_known(state, event):
        return
    certificate, state_digest, outcome = (
        clean(text, MAX_NAME_CHARS)
        for text in (event.certificate, event.state_digest, event.outcome)
    )
    samples, loss = whole(event.samples), finite(event.loss)
    before = state.newest
    took = natural(event.at - before.at) if before and before.number + 1 == event.number else 0.0
    phases = (
        (clean(phase, MAX_NAME_CHARS), natural(seconds))
        for phase, seconds in event.phase_seconds.items()
    )
    state.rounds.appendleft(
        RoundSummary(
            number=whole(event.number),
            view=whole(event.view),
            certificate=certificate,
            state_digest=state_digest,
            at=natural(event.at),
            outcome=outcome,
            members=_ids(event.members),
            contributors=_ids(tuple(share.peer for share in event.shares)),
            contributed=tuple(whole(share.samples) for share in event.shares[:MAX_MEMBERS]),
            clipped=_ids(tuple(share.peer for share in event.shares if share.is_clipped)),
            samples=samples,
            loss=loss,
            phase_seconds=dict(islice(phases, MAX_PHASES)),
            reason=clean(event.reason, MAX_TEXT_CHARS),
            plan=clean(event.plan, MAX_TEXT_CHARS),
            group_sizes=tuple(whole(size) for size in event.group_sizes[:MAX_MEMBERS]),
            predicted_s=natural(event.predicted_s) if event.predicted_s is not None else None,
        )
    )
    state.newest = state.rounds[0]
    note_groups(state, event, before)
    times = dict(state.newest.phase_seconds)
    if took >= TOGETHER_S:
        state.intervals.append(took)
        times[WHOLE] = took
    totals = with_times(state.totals, times)
    clipped = len({*state.newest.clipped, *_ids(event.clipped)})
    state.totals = replace(
        totals, clipped=totals.clipped + clipped, degraded=totals.degraded + event.is_degraded
    )
    seconds = state.newest.phase_seconds
    state.points.add(
        RoundPoint(
            number=whole(event.number),
            at=natural(event.at),
            samples=samples,
            members=whole(len(event.members)),
            counted=whole(len(event.shares)),
            took_s=took if took >= TOGETHER_S else 0.0,
            phases=tuple(seconds.get(phase, 0.0) for phase in PHASES) if seconds else (),
            failed=state.failed_tries,
        )
    )
    state.failed_tries = 0
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
        round_seconds=took if took >= TOGETHER_S else run.round_seconds,
        plan=state.newest.plan or run.plan,
        next_round_s=natural(event.next_round_s) if event.next_round_s is not None else None,
        next_round_reason=clean(event.next_round_reason, MAX_TEXT_CHARS),
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
        you = replace(
            you,
            samples_pending=max(0, you.samples_pending - mine),
            last_counted_at=natural(event.at),
        )
    state.you = you
    state.held_out.certified(
        certificate,
        ScoredRound(
            number=whole(event.number),
            at=natural(event.at),
            samples=state.run.samples_certified,
            training=loss,
            # Voters measure the loss; in runs of earlier rules every member does.
            members=frozenset(state.newest.members).intersection(
                event.record_voters or state.newest.members
            ),
            scores={},
        ),
    )
    if loss is not None:
        state.curve.add(
            LossPoint(
                number=whole(event.number),
                at=natural(event.at),
                samples=state.run.samples_certified,
                loss=loss,
            )
        )
    note_membership(state, event)
    state.alone, state.stuck = False, ""


def _prediction_error(rounds: Iterable[RoundSummary]) -> float | None:
    """Return the median relative error of the rounds' predictions, or None without any.

    Only rounds in which this node took part count.
    """
    errors = [
        abs(one.predicted_s - one.exchange_s) / one.exchange_s
        for one in rounds
        if one.predicted_s is not None and one.exchange_s > 0
    ]
    return median(errors) if errors else None


def round_averaged(state: StatusState, event: journal.RoundAveraged) -> None:
    """Show a round without a certificate.

    It counts as none of the verified or paid rounds.
    """
    outcome, averaged = clean(event.outcome, MAX_NAME_CHARS), event.outcome == "averaged"
    peers = _ids(tuple(share.peer for share in event.shares))
    phases = (
        (clean(phase, MAX_NAME_CHARS), natural(seconds))
        for phase, seconds in event.phase_seconds.items()
    )
    before = next((known for known in state.rounds if known.outcome == "averaged"), None)
    number, loss = whole(event.number), finite(event.loss)
    state.rounds.appendleft(
        RoundSummary(
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
