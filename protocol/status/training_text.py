"""Sentences about the trainer and its work."""

from __future__ import annotations

from protocol import journal
from protocol.status.figures import count, duration, loss, quantity, rate, round_numbers, whole
from protocol.status.text_parts import LeveledText, NameOf, because


def trainer_ready(event: journal.TrainerReady, name_of: NameOf) -> LeveledText:
    return "good", f"The trainer is ready on {event.device}: {count(event.parameters)} parameters."


def trainer_stopped(event: journal.TrainerStopped, name_of: NameOf) -> LeveledText:
    if not event.limit:
        restart = f"restart {count(event.restarts)}"
        return "bad", f"The trainer died and restarts ({restart}){because(event.reason)}"
    what = event.reason.rstrip(".")
    if event.for_good:
        return "bad", f"{what}. {not_training(event.limit)}{_hint(event.fix)}"
    return "bad", f"{what}. Restart {event.failures} of {event.limit}.{_hint(event.fix)}"


def not_training(restarts: int) -> str:
    """Return what a node says of itself after the last restart."""
    return (
        f"Training stopped: {quantity(restarts, 'restart')} did not help. "
        "Correct the task, then start this node again."
    )


def training_held(event: journal.TrainingHeld, name_of: NameOf) -> LeveledText:
    return "info", "Training is paused." if event.held else "Training goes on."


def limits_report(event: journal.LimitsReport, name_of: NameOf) -> LeveledText:
    if event.pauses:
        said = [f"until {pause.until}: {pause.reason}" for pause in event.pauses]
        return "info", f"Your limits pause training {', and '.join(said)}."
    if event.blind:
        return "warning", f"{'; '.join(event.blind)}."
    return "info", "Your limits let this machine train."


def _hint(fix: str) -> str:
    return f" To fix it: {fix.rstrip('.')}." if fix else ""


def batch_skipped(event: journal.BatchSkipped, name_of: NameOf) -> LeveledText:
    counted = f"{count(event.skipped)} of {quantity(event.drawn, 'batch', 'batches')} so far"
    what, where = event.what.rstrip("."), event.where.rstrip(".")
    return "warning", f"Skipped a batch ({counted}): {what}; {where}."


def task_differs(event: journal.TaskDiffers, name_of: NameOf) -> LeveledText:
    peer = name_of(event.peer)
    if not event.difference:
        return "info", f"{peer} has the same task now."
    return "warning", f"{peer} has another task, so you do not average{because(event.difference)}"


def trained(event: journal.Trained, name_of: NameOf) -> LeveledText:
    if not event.samples:
        return "info", f"Nothing was trained for round {event.number}."
    rounds = (event.number, event.number)
    return "info", trained_text(event, rounds, event.samples, event.seconds)


def trained_text(
    event: journal.Trained, rounds: tuple[int, int], samples: int, seconds: float
) -> str:
    """Return the sentence for the work of consecutive rounds, of which `event` is the last."""
    speed = f" ({rate(whole(samples) / seconds)} samples/s)" if seconds > 0 else ""
    took, at_loss = duration(seconds), _at_loss(event.loss)
    done = f"Trained {quantity(samples, 'sample')} in {took}{speed}"
    return f"{done} for {round_numbers(*rounds)}{at_loss}."


def training_progress(event: journal.TrainingProgress, name_of: NameOf) -> LeveledText:
    samples, speed = quantity(event.samples, "sample"), rate(event.samples_per_second)
    return "info", f"Training: {samples} so far, {speed} samples/s, loss {loss(event.loss)}."


def anchor_scored(event: journal.AnchorScored, name_of: NameOf) -> LeveledText:
    samples, took = quantity(event.samples, "held-out sample"), duration(event.seconds)
    scored = f"Scored the model of round {event.number} on {samples} in {took}"
    return "info", f"{scored}: held-out loss {loss(event.loss)}{_metrics(event.metrics)}."


def _metrics(metrics: dict[str, float]) -> str:
    return "".join(f", {name} {loss(value)}" for name, value in metrics.items())


def work_dropped(event: journal.WorkDropped, name_of: NameOf) -> LeveledText:
    return "warning", f"{quantity(event.samples, 'sample')} discarded{because(event.reason)}"


def work_audited(event: journal.WorkAudited, name_of: NameOf) -> LeveledText:
    found = event.reason or (
        f"in {100 * event.score:.0f}% of its samples' groups it knew more than in others"
    )
    text = f"Audit of {name_of(event.peer)}, round {event.number}: {found}."
    if event.favours is False:
        return "warning", f"{text} This node speaks against it."
    return "info", f"{text} This node speaks for it." if event.favours else text


def _at_loss(value: float | None) -> str:
    return f", loss {loss(value)}" if value is not None else ""
