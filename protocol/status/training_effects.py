"""How events of the trainer change the state behind a status."""

from __future__ import annotations

from msgspec.structs import replace

from protocol import journal
from protocol.limits.limits import LimitPause
from protocol.status.event_text import describe
from protocol.status.figures import clean, finite, natural, whole
from protocol.status.node_records import LimitsSummary
from protocol.status.state import MAX_NAME_CHARS, MAX_TEXT_CHARS, StatusState

MAX_TRACE_LINES, MAX_TRACE_COLUMNS = 40, 200
"""How much of a traceback is shown: two screens. The log has all of it."""

MAX_LIMITS = 16
"""Limits that are shown: more than there are settings of them."""

KEPT_OTHER_TASKS = 64
"""Peers that are known to train another task: as many as a full group has members."""


def trainer_ready(state: StatusState, event: journal.TrainerReady) -> None:
    state.you = replace(state.you, device=clean(event.device, MAX_TEXT_CHARS))
    state.run = replace(state.run, parameters=whole(event.parameters))
    state.trainer_up, state.trainer_down, state.stuck = True, "", ""


def training_held(state: StatusState, event: journal.TrainingHeld) -> None:
    state.held = event.held


def limits_report(state: StatusState, event: journal.LimitsReport) -> None:
    summary = LimitsSummary(
        pauses=tuple(
            LimitPause(
                limit=clean(pause.limit, MAX_NAME_CHARS),
                until=clean(pause.until, MAX_TEXT_CHARS),
                reason=clean(pause.reason, MAX_TEXT_CHARS),
            )
            for pause in event.pauses[:MAX_LIMITS]
        ),
        caps=tuple(clean(text, MAX_TEXT_CHARS) for text in event.caps[:MAX_LIMITS]),
        blind=tuple(clean(text, MAX_TEXT_CHARS) for text in event.blind[:MAX_LIMITS]),
    )
    state.you = replace(state.you, limits=summary)


def trainer_stopped(state: StatusState, event: journal.TrainerStopped) -> None:
    state.you = replace(state.you, worker_restarts=whole(event.restarts), samples_per_second=0.0)
    state.trainer_up, state.trainer_down = (
        False,
        clean(event.reason, MAX_TEXT_CHARS) or "it gave no reason",
    )
    state.gave_up = event.for_good
    if event.limit:
        _, sentence = describe(event)
        state.you = replace(
            state.you, failure=sentence, failure_trace=_trace_lines(event.trace), batches_skipped=0
        )


def _trace_lines(trace: str) -> tuple[str, ...]:
    """Return the end of a traceback, with each line fit to show."""
    return tuple(clean(line, MAX_TRACE_COLUMNS) for line in trace.splitlines()[-MAX_TRACE_LINES:])


def _clear_failure(state: StatusState) -> None:
    """Forget a failure, because something was trained after it."""
    if state.you.failure:
        state.you = replace(state.you, failure="", failure_trace=())


def batch_skipped(state: StatusState, event: journal.BatchSkipped) -> None:
    state.you = replace(state.you, batches_skipped=whole(event.skipped))
    # No batch could be used.
    if event.skipped >= event.drawn:
        _, sentence = describe(event)
        state.you = replace(state.you, failure=sentence, failure_trace=_trace_lines(event.trace))


def task_differs(state: StatusState, event: journal.TaskDiffers) -> None:
    state.other_tasks.pop(event.peer, None)
    if event.difference:
        state.other_tasks[event.peer] = clean(event.difference, MAX_TEXT_CHARS)
        while len(state.other_tasks) > KEPT_OTHER_TASKS:
            del state.other_tasks[next(iter(state.other_tasks))]


def trained(state: StatusState, event: journal.Trained) -> None:
    samples = whole(event.samples)
    state.you = replace(
        state.you,
        samples_total=whole(state.you.samples_total + samples),
        samples_pending=whole(state.you.samples_pending + samples),
        loss=finite(event.loss) if event.loss is not None else state.you.loss,
        trained_s=natural(state.you.trained_s + natural(event.seconds)),
    )
    state.stuck = ""
    if samples:
        _clear_failure(state)
    state.computed_s = natural(state.computed_s + natural(event.seconds))


def training_progress(state: StatusState, event: journal.TrainingProgress) -> None:
    loss = finite(event.loss)
    if event.samples > 0:
        _clear_failure(state)
    state.you = replace(
        state.you,
        samples_per_second=natural(event.samples_per_second),
        loss=loss if loss is not None else state.you.loss,
    )


def work_dropped(state: StatusState, event: journal.WorkDropped) -> None:
    dropped = whole(event.samples)
    pending = max(0, state.you.samples_pending - dropped)
    state.you = replace(
        state.you,
        samples_pending=pending,
        samples_dropped=whole(state.you.samples_dropped + dropped),
    )
