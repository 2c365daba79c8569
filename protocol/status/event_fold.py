"""The fold: how each event changes the state behind a status.

Rules. Any events in any order are taken; none raises and none makes the state grow past its bounds.
What a peer says of itself is cleaned here, once, so that nothing downstream has to (numbers finite
and within what JSON keeps exact, text printable and short). A certificate already folded changes
nothing. Time comes from the events alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from protocol import journal
from protocol.status.event_text import describe
from protocol.status.figures import clean, finite, natural, whole
from protocol.status.peers import peer_down, peer_forgotten, peer_registered, peer_report, peer_up
from protocol.status.records import EventLine
from protocol.status.rounds import is_known, planned, round_averaged, round_certified, view_passed
from protocol.status.state import MAX_NAME_CHARS, MAX_TEXT_CHARS, StatusState

# One sentence a minute for each reason: refusals are counted, not narrated.
REFUSAL_SILENCE_S = 60.0
# Of a traceback that is shown: two screens; the log has all of it.
MAX_TRACE_LINES, MAX_TRACE_COLUMNS = 40, 200
# Peers of which it is known that they train something else: a full group's.
KEPT_OTHER_TASKS = 64
MAX_TROUBLES = 8
MAX_TROUBLE_CHARS = 512
# Of this node: a few for each of its interfaces.
MAX_ADDRESSES = 32

_QUIET = (
    journal.PhaseEntered,
    journal.TrainingProgress,
    journal.PeerReport,
    journal.TrafficReport,
    journal.CheckpointWritten,
)
_OF_OTHERS = (
    journal.TaskDiffers,
    journal.PeerRegistered,
    journal.PeerUp,
    journal.PeerDown,
    journal.PeerForgotten,
    journal.InputRefused,
)
# Said again and again: the newest is enough.
_REPEATED = {journal.Alone: "alone", journal.Stuck: "stuck", journal.ChainReport: "chain"}
OFFERING = "offer"  # the phase that waits for the disk


def _node_started(state: StatusState, event: journal.NodeStarted) -> None:
    state.you = replace(
        state.you,
        peer=clean(event.peer, MAX_NAME_CHARS),
        name=clean(event.name, MAX_NAME_CHARS),
        role=clean(event.role, MAX_NAME_CHARS),
        version=clean(event.version, MAX_NAME_CHARS),
        addresses=tuple(
            clean(address, MAX_TEXT_CHARS) for address in event.addresses[:MAX_ADDRESSES]
        ),
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
    """The end of a traceback, each line fit to show."""
    return tuple(clean(line, MAX_TRACE_COLUMNS) for line in trace.splitlines()[-MAX_TRACE_LINES:])


def _works(state: StatusState) -> None:
    """Something was trained: what failed before is over."""
    if state.you.failure:
        state.you = replace(state.you, failure="", failure_trace=())


def _batch_skipped(state: StatusState, event: journal.BatchSkipped) -> None:
    state.you = replace(state.you, batches_skipped=whole(event.skipped))
    if event.skipped >= event.drawn:  # none could be used
        _, sentence = describe(event)
        state.you = replace(state.you, failure=sentence, failure_trace=_trace_lines(event.trace))


def _task_differs(state: StatusState, event: journal.TaskDiffers) -> None:
    state.other_tasks.pop(event.peer, None)
    if event.difference:
        state.other_tasks[event.peer] = clean(event.difference, MAX_TEXT_CHARS)
        while len(state.other_tasks) > KEPT_OTHER_TASKS:
            del state.other_tasks[next(iter(state.other_tasks))]


def _phase_entered(state: StatusState, event: journal.PhaseEntered) -> None:
    phase, reason = clean(event.phase, MAX_NAME_CHARS), clean(event.reason, MAX_TEXT_CHARS)
    state.you = replace(state.you, phase=phase, phase_reason=reason)
    state.run = replace(state.run, view=whole(event.view))
    state.working_on = whole(event.number)
    if phase != OFFERING and state.disk_full.startswith(journal.NOT_OFFERED):
        state.disk_full = ""  # the offer is on the disk now


def _trained(state: StatusState, event: journal.Trained) -> None:
    samples = whole(event.samples)
    state.you = replace(
        state.you,
        samples_total=whole(state.you.samples_total + samples),
        samples_pending=whole(state.you.samples_pending + samples),
        loss=finite(event.loss) if event.loss is not None else state.you.loss,
    )
    state.stuck = ""
    if samples:
        _works(state)
    state.computed_s = natural(state.computed_s + natural(event.seconds))


def _training_progress(state: StatusState, event: journal.TrainingProgress) -> None:
    loss = finite(event.loss)
    if event.samples > 0:
        _works(state)
    state.you = replace(
        state.you,
        samples_per_second=natural(event.samples_per_second),
        loss=loss if loss is not None else state.you.loss,
    )


def _alone(state: StatusState, event: journal.Alone) -> None:
    state.you = replace(state.you, samples_pending=whole(event.samples_pending))
    state.alone = True


def _caught_up(state: StatusState, event: journal.CaughtUp) -> None:
    state.run = replace(state.run, number=max(state.run.number, whole(event.number)))
    state.stuck = ""


def _stuck(state: StatusState, event: journal.Stuck) -> None:
    state.stuck = clean(event.reason, MAX_TEXT_CHARS) or "no reason was given"


def _refused(state: StatusState, event: journal.InputRefused) -> None:
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
    state.you = replace(
        state.you,
        samples_pending=pending,
        samples_dropped=whole(state.you.samples_dropped + dropped),
    )


def _chain_report(state: StatusState, event: journal.ChainReport) -> None:
    _, sentence = describe(event)
    state.rewards = sentence


def _stopped(state: StatusState, event: journal.NodeStopped) -> None:
    state.stopped = clean(event.reason, MAX_TEXT_CHARS)
    state.you = replace(
        state.you, phase="stopped", phase_reason=state.stopped, samples_per_second=0.0
    )


def _checkpoint_written(state: StatusState, event: journal.CheckpointWritten) -> None:
    state.disk_full = ""


def _warned(state: StatusState, event: journal.Warned) -> None:
    if event.code == journal.DISK_FULL:
        state.disk_full = clean(event.message, MAX_TEXT_CHARS)
        state.disk_full_at = natural(event.at)


def _trouble(state: StatusState, event: journal.Trouble) -> None:
    code = clean(event.code, MAX_NAME_CHARS)
    state.troubles.pop(code, None)
    if event.message and len(state.troubles) < MAX_TROUBLES:
        level = "bad" if event.level == "bad" else "warning"
        state.troubles[code] = (level, clean(event.message, MAX_TROUBLE_CHARS))


def _nothing(state: StatusState, event: journal.JournalEvent) -> None:
    """The event's sentence says it all."""


EFFECTS: dict[type[journal.JournalEvent], Callable[[StatusState, Any], None]] = {
    journal.NodeStarted: _node_started,
    journal.TrainerReady: _trainer_ready,
    journal.TrainerStopped: _trainer_stopped,
    journal.BatchSkipped: _batch_skipped,
    journal.TaskDiffers: _task_differs,
    journal.PhaseEntered: _phase_entered,
    journal.Trained: _trained,
    journal.TrainingProgress: _training_progress,
    journal.Planned: planned,
    journal.ViewPassed: view_passed,
    journal.RoundCertified: round_certified,
    journal.RoundAveraged: round_averaged,
    journal.Alone: _alone,
    journal.CaughtUp: _caught_up,
    journal.Stuck: _stuck,
    journal.PeerUp: peer_up,
    journal.PeerDown: peer_down,
    journal.PeerReport: peer_report,
    journal.PeerForgotten: peer_forgotten,
    journal.InputRefused: _refused,
    journal.TrafficReport: _traffic,
    journal.WorkDropped: _work_dropped,
    journal.CheckpointWritten: _checkpoint_written,
    journal.Warned: _warned,
    journal.Trouble: _trouble,
    journal.ChainReport: _chain_report,
    journal.PeerRegistered: peer_registered,
    journal.NodeStopped: _stopped,
}


def _is_told(state: StatusState, event: journal.JournalEvent) -> bool:
    """Whether the event gets a line among the last events."""
    if isinstance(event, _QUIET):
        return False
    if isinstance(event, journal.InputRefused):
        since = natural(event.at) - state.refusal_said_at.get(event.reason, -REFUSAL_SILENCE_S)
        if 0 <= since < REFUSAL_SILENCE_S:
            return False
        if event.reason in state.refusals:
            state.refusal_said_at[event.reason] = natural(event.at)
    if isinstance(event, journal.RoundCertified):
        return not is_known(state, event)
    return True


def fold(state: StatusState, event: journal.JournalEvent) -> StatusState:
    """Take one event into `state`, and return it.

    Never raises, never grows past the bounds; about 5 microseconds.
    """
    if _is_told(state, event):
        level, text = describe(event, state.who)
        sentence = EventLine(at=natural(event.at), level=level, text=text)
        full = isinstance(event, journal.Warned) and event.code == journal.DISK_FULL
        state.tell(
            "disk" if full else _REPEATED.get(type(event), ""),
            sentence,
            others=isinstance(event, _OF_OTHERS),
        )
    EFFECTS[type(event)](state, event)
    return state
