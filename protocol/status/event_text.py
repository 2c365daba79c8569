"""Every event in plain words: what happened, with its numbers, as one sentence a person can read
without knowing the code.

`describe(event, who)` is total over `protocol.journal.AnyEvent`; a test holds it to that. Reasons that
somebody already put into words (plans, views, refusals) are passed on, not paraphrased.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from protocol import journal
from protocol.identity import PeerId
from protocol.status.figures import (
    clean,
    count,
    duration,
    loss,
    of,
    phase_words,
    rate,
    size,
    tail,
    tokens,
    whole,
)

MAX_SENTENCE_CHARS = 400  # four lines on a telephone

NameOf = Callable[[PeerId], str]
LeveledText = tuple[str, str]  # level, text


def because(reason: str) -> str:
    """`: reason` as the end of a sentence, or just its full stop."""
    reason = reason.strip().rstrip(".")
    return f": {reason}." if reason else "."


def _node_started(event: journal.NodeStarted, who: NameOf) -> LeveledText:
    what = "Observing" if event.role == "observer" else "Started"
    text = f"{what} as {event.name or tail(event.peer)} in run {event.run_name or event.run[:8]}."
    return "info", " ".join([text, *event.assumed])


def _trainer_ready(event: journal.TrainerReady, who: NameOf) -> LeveledText:
    return "good", f"The trainer is ready on {event.device}: {count(event.parameters)} parameters."


def _trainer_stopped(event: journal.TrainerStopped, who: NameOf) -> LeveledText:
    if not event.limit:
        return (
            "bad",
            f"The trainer died and is being restarted ({of(event.restarts, 'restart')} so far){because(event.reason)}",
        )
    what = event.reason.rstrip(".")
    if event.for_good:
        return "bad", f"{what}. {not_training(event.limit)}{_hint(event.fix)}"
    return "bad", f"{what}. Restart {event.failures} of {event.limit}.{_hint(event.fix)}"


def not_training(restarts: int) -> str:
    """What a node says of itself after the last restart."""
    return f"Not training any more: {of(restarts, 'restart')} did not help. Mend the task, then start this node again."


def _hint(fix: str) -> str:
    return f" To mend it: {fix.rstrip('.')}." if fix else ""


def _batch_skipped(event: journal.BatchSkipped, who: NameOf) -> LeveledText:
    counted = f"{count(event.skipped)} of {of(event.drawn, 'batch', 'batches')} so far"
    return (
        "warning",
        f"Skipped a batch ({counted}): {event.what.rstrip('.')}; {event.where.rstrip('.')}.",
    )


def _task_differs(event: journal.TaskDiffers, who: NameOf) -> LeveledText:
    if not event.difference:
        return "info", f"{who(event.peer)} has the same task now."
    return (
        "warning",
        f"{who(event.peer)} has another task, so neither averages with the other{because(event.difference)}",
    )


def _phase_entered(event: journal.PhaseEntered, who: NameOf) -> LeveledText:
    return "info", f"Round {event.number}, {phase_words(event.phase)}{because(event.reason)}"


def _trained(event: journal.Trained, who: NameOf) -> LeveledText:
    if not event.samples:
        return "info", f"Nothing was trained for round {event.number}."
    speed = (
        f" ({rate(whole(event.samples) / event.seconds)} samples/s)" if event.seconds > 0 else ""
    )
    at_loss = f", loss {loss(event.loss)}" if event.loss is not None else ""
    return (
        "info",
        f"Trained {of(event.samples, 'sample')} in {duration(event.seconds)}{speed} for round {event.number}{at_loss}.",
    )


def _training_progress(event: journal.TrainingProgress, who: NameOf) -> LeveledText:
    return (
        "info",
        f"Training: {of(event.samples, 'sample')} so far, {rate(event.samples_per_second)} a second, loss {loss(event.loss)}.",
    )


def _planned(event: journal.Planned, who: NameOf) -> LeveledText:
    text = f"Round {event.number} is planned by {who(event.leader)} with {of(len(event.members), 'member')}{because(event.reason)}"
    return "info", text


def _view_passed(event: journal.ViewPassed, who: NameOf) -> LeveledText:
    again = "" if event.view == 0 else f", try {event.view + 1}"
    return (
        "warning",
        f"Round {event.number}{again}, ended without a certificate{because(event.reason)}",
    )


_OUTCOMES = {
    "counted": ("good", "Your work counted"),
    "late": ("warning", "Your work came too late and is offered again"),
    "lost": ("warning", "Your work was lost on the way and is offered again"),
    "idle": ("info", "You had nothing to offer"),
    "observed": ("info", ""),
}


def _round_certified(event: journal.RoundCertified, who: NameOf) -> LeveledText:
    level, yours = _OUTCOMES.get(event.outcome, ("info", event.outcome))
    part = f"{len(event.shares)} of {of(len(event.members), 'member')} counted"
    at_loss = f", loss {loss(event.loss)}" if event.loss is not None else ""
    text = f"Round {event.number} is certified: {part}, {of(event.samples, 'sample')}{at_loss}."
    if yours:
        text += f" {yours}{because(event.reason)}"
    elif event.reason:
        text += f" {event.reason}"
    return level, text


_AVERAGED = {
    "averaged": ("info", "was averaged"),
    "partial": (
        "warning",
        "was averaged only in part and is not taken; your work waits for the next one",
    ),
    "apart": ("warning", "found this node elsewhere than most others"),
    "failed": ("warning", "was not averaged; your work waits for the next one"),
}


def _round_averaged(event: journal.RoundAveraged, who: NameOf) -> LeveledText:
    level, what = _AVERAGED.get(event.outcome, ("info", event.outcome))
    at_loss = (
        f", loss {loss(event.loss)}"
        if event.loss is not None and event.outcome == "averaged"
        else ""
    )
    return level, f"Round {event.number} {what}{at_loss}{because(event.reason)}"


def _alone(event: journal.Alone, who: NameOf) -> LeveledText:
    text = f"Round {event.number} came and nobody else was there: {of(event.samples_pending, 'sample')} wait{because(event.reason)}"
    return "warning", text


def _caught_up(event: journal.CaughtUp, who: NameOf) -> LeveledText:
    text = f"Caught up with round {event.number}: {size(event.size_bytes)} from {who(event.source)} in {duration(event.seconds)}."
    return "good", text


def _stuck(event: journal.Stuck, who: NameOf) -> LeveledText:
    return "bad", f"Stuck{because(event.reason)}"


def _peer_up(event: journal.PeerUp, who: NameOf) -> LeveledText:
    path = "through a relay" if event.path == "relayed" else "directly"
    return "info", f"Connected {path} to {who(event.peer)}" + (
        f" at {event.address}." if event.address else "."
    )


def _peer_down(event: journal.PeerDown, who: NameOf) -> LeveledText:
    return "warning", f"Lost the connection to {who(event.peer)}{because(event.reason)}"


def _peer_report(event: journal.PeerReport, who: NameOf) -> LeveledText:
    return (
        "info",
        f"Heard from {who(event.peer)}: round {event.number}, {phase_words(event.phase)}.",
    )


def _peer_forgotten(event: journal.PeerForgotten, who: NameOf) -> LeveledText:
    return (
        "warning",
        f"Gave up on {who(event.peer)}: silent for {duration(event.silent_s)}, it no longer counts as a member.",
    )


def _refused(event: journal.InputRefused, who: NameOf) -> LeveledText:
    sender = who(event.peer) if event.peer else "a stranger"
    times = f", {count(event.count)} times" if event.count > 1 else ""
    return "warning", f"Refused what {sender} sent ({event.reason}{times}){because(event.detail)}"


def _traffic(event: journal.TrafficReport, who: NameOf) -> LeveledText:
    sent, received = (
        event.control_sent + event.bulk_sent,
        event.control_received + event.bulk_received,
    )
    return (
        "info",
        f"Sent {size(sent)} and received {size(received)} over {of(event.connections, 'connection')}.",
    )


def _work_dropped(event: journal.WorkDropped, who: NameOf) -> LeveledText:
    return (
        "warning",
        f"{of(event.samples, 'sample')} will not be offered any more{because(event.reason)}",
    )


def _checkpoint(event: journal.CheckpointWritten, who: NameOf) -> LeveledText:
    return (
        "info",
        f"Round {event.number} is on disk: {size(event.size_bytes)} in {duration(event.seconds)}.",
    )


def _warned(event: journal.Warned, who: NameOf) -> LeveledText:
    return "warning", f"{event.message} [{event.code}]"


def _trouble(event: journal.Trouble, who: NameOf) -> LeveledText:
    if not event.message:
        return "info", f"It is over [{event.code}]"
    return ("bad" if event.level == "bad" else "warning"), f"{event.message} [{event.code}]"


_CHAIN = {
    "live": ("good", "Paid"),
    "none": ("warning", "Unpaid"),
    "waiting": ("info", "The chain was not asked yet"),
    "locked": ("warning", "Unpaid, the wallet is locked"),
    "down": ("warning", "Training on unpaid, the chain is not there"),
    "refused": ("warning", "Training on unpaid, the chain refused"),
    "wrong": ("bad", "Training on unpaid, that is another chain than the run's"),
}


def _chain_report(event: journal.ChainReport, who: NameOf) -> LeveledText:
    level, what = _CHAIN.get(event.state, ("info", event.state))
    if event.state == "live":
        paid = f" to {event.payout}" if event.payout else ""
        told = f", {of(event.samples, 'certified sample')} told to the chain"
        claimed = (
            f", {tokens(int(event.claimed))} tokens claimed" if event.claimed.isdecimal() else ""
        )
        return level, f"Paid on {event.profile}{paid}: heartbeat read back{told}{claimed}."
    return level, f"{what}{because(event.reason)}"


def _peer_registered(event: journal.PeerRegistered, who: NameOf) -> LeveledText:
    level = {"rejected": "warning", "suspended": "warning", "approved": "good"}.get(
        event.state, "info"
    )
    return level, f"The registration of {who(event.peer)} is {event.state}{because(event.reason)}"


def _stopped(event: journal.NodeStopped, who: NameOf) -> LeveledText:
    return "info", f"Stopped{because(event.reason)}"


WORDS: dict[type[journal.JournalEvent], Callable[[Any, NameOf], LeveledText]] = {
    journal.NodeStarted: _node_started,
    journal.TrainerReady: _trainer_ready,
    journal.TrainerStopped: _trainer_stopped,
    journal.BatchSkipped: _batch_skipped,
    journal.TaskDiffers: _task_differs,
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
    journal.InputRefused: _refused,
    journal.TrafficReport: _traffic,
    journal.WorkDropped: _work_dropped,
    journal.CheckpointWritten: _checkpoint,
    journal.Warned: _warned,
    journal.Trouble: _trouble,
    journal.ChainReport: _chain_report,
    journal.PeerRegistered: _peer_registered,
    journal.NodeStopped: _stopped,
}


def describe(event: journal.JournalEvent, who: NameOf = tail) -> LeveledText:
    """The level and the sentence of an event; `who` says a peer's name."""
    level, text = WORDS[type(event)](event, who)
    return level, clean(text, MAX_SENTENCE_CHARS)
