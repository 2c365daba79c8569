"""The fold: how each event changes the state behind a status.

- Events may come in any order. None raises, and none makes the state grow past its bounds.
- What a peer reports of itself is cleaned here, once: numbers are finite and exact in JSON, text is
  printable and short. Nothing downstream has to clean it.
- A certificate that was folded before changes nothing.
- Time comes from the events alone.

To add an event, add its effect here and its sentence to `event_text.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from protocol import journal
from protocol.status.coverage_effects import coverage_changed, coverage_report
from protocol.status.event_text import describe
from protocol.status.figures import clean, finite, natural, whole
from protocol.status.held_out_effects import anchor_scored, peer_scored
from protocol.status.membership import work_audited
from protocol.status.node_records import ClockSummary, ReachSummary
from protocol.status.peer_effects import (
    peer_down,
    peer_forgotten,
    peer_registered,
    peer_report,
    peer_up,
)
from protocol.status.records import EventLine
from protocol.status.reward_effects import chain_report, rewards_report
from protocol.status.round_effects import (
    planned,
    round_averaged,
    round_certified,
    view_passed,
)
from protocol.status.run_records import QuorumSummary
from protocol.status.shown_events import ABOUT_PEERS, has_sentence
from protocol.status.state import MAX_NAME_CHARS, MAX_TEXT_CHARS, StatusState
from protocol.status.training_effects import (
    batch_skipped,
    limits_report,
    task_differs,
    trained,
    trainer_ready,
    trainer_stopped,
    training_held,
    training_progress,
    work_dropped,
)

MAX_TROUBLES = 8
MAX_TROUBLE_CHARS = 512

MAX_ADDRESSES = 32
"""Addresses of this node: a few for each of its interfaces."""

MAX_UNREACHABLE = 64
"""Peers without a path: as many as a plan has members."""

# Events that repeat: a newer one replaces the sentence of the one before.
_REPEATED = {journal.Alone: "alone", journal.Stuck: "stuck", journal.ChainReport: "chain"}

OFFERING = "offer"
"""The phase that waits for the disk."""


def _node_started(state: StatusState, event: journal.NodeStarted) -> None:
    state.you = replace(
        state.you,
        peer=clean(event.peer, MAX_NAME_CHARS),
        name=clean(event.name, MAX_NAME_CHARS),
        role=clean(event.role, MAX_NAME_CHARS),
        version=clean(event.version, MAX_NAME_CHARS),
        addresses=_cleaned(event.addresses),
        started_at=natural(event.at),
    )
    state.run = replace(
        state.run,
        run=clean(event.run, MAX_NAME_CHARS),
        name=clean(event.run_name, MAX_NAME_CHARS),
        task=clean(event.task, MAX_TEXT_CHARS),
        engine=clean(event.engine, MAX_NAME_CHARS),
        admits=clean(event.admits, MAX_NAME_CHARS),
        owner=clean(event.owner, MAX_NAME_CHARS),
        chain=clean(event.chain, MAX_NAME_CHARS),
    )
    state.min_peers = event.min_peers
    state.stopped = None
    state.held = False
    state.peers.pop(event.peer, None)


def _addresses_changed(state: StatusState, event: journal.AddressesChanged) -> None:
    state.you = replace(state.you, addresses=_cleaned(event.addresses))


def _cleaned(addresses: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(clean(address, MAX_TEXT_CHARS) for address in addresses[:MAX_ADDRESSES])


def _phase_entered(state: StatusState, event: journal.PhaseEntered) -> None:
    phase, reason = clean(event.phase, MAX_NAME_CHARS), clean(event.reason, MAX_TEXT_CHARS)
    state.you = replace(state.you, phase=phase, phase_reason=reason)
    state.run = replace(state.run, view=whole(event.view))
    state.working_on = whole(event.number)
    if phase != OFFERING and state.disk_full.startswith(journal.NOT_OFFERED):
        # The offer is on the disk now.
        state.disk_full = ""


def _alone(state: StatusState, event: journal.Alone) -> None:
    state.you = replace(state.you, samples_pending=whole(event.samples_pending))
    state.alone = True


def _quorum_report(state: StatusState, event: journal.QuorumReport) -> None:
    quorum = QuorumSummary(
        voters=whole(event.voters),
        connected=whole(event.connected),
        needed=whole(event.needed),
        patient=event.patient,
        last_full=whole(event.last_full),
        full=event.full,
        reason=clean(event.reason, MAX_TEXT_CHARS),
    )
    state.run = replace(state.run, quorum=quorum)


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


def _reach(state: StatusState, event: journal.ReachReport) -> None:
    reach = ReachSummary(
        callable=event.callable,
        nat=clean(event.nat, MAX_NAME_CHARS),
        observed=clean(event.observed, MAX_NAME_CHARS),
        text=clean(event.text, MAX_TEXT_CHARS),
        unreachable=event.unreachable[:MAX_UNREACHABLE],
        relay_sessions=whole(event.relay_sessions),
        relayed_bytes=whole(event.relayed_bytes),
    )
    state.you = replace(state.you, reach=reach)


def _stopped(state: StatusState, event: journal.NodeStopped) -> None:
    state.stopped = clean(event.reason, MAX_TEXT_CHARS)
    state.you = replace(
        state.you, phase="stopped", phase_reason=state.stopped, samples_per_second=0.0
    )


def _checkpoint_written(state: StatusState, event: journal.CheckpointWritten) -> None:
    state.disk_full = ""


def _disk_report(state: StatusState, event: journal.DiskReport) -> None:
    state.you = replace(
        state.you,
        disk_written_bytes=whole(event.written_bytes),
        disk_hourly_bytes=whole(event.hourly_bytes),
    )


def _clock_report(state: StatusState, event: journal.ClockReport) -> None:
    clock = ClockSummary(
        compared=whole(event.compared),
        offset_s=finite(event.offset_s) or 0.0,
        text=clean(event.text, MAX_TEXT_CHARS),
    )
    state.you = replace(state.you, clock=clock)


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


def _ordered(state: StatusState, event: journal.OwnerOrdered) -> None:
    order = event.action if event.action in ("pause", "stop") else ""
    state.run = replace(state.run, order=order)
    state.ordered_at = natural(event.at)


def _nothing(state: StatusState, event: journal.JournalEvent) -> None:
    """Change nothing: the event's sentence is all there is to show."""


EFFECTS: dict[type[journal.JournalEvent], Callable[[StatusState, Any], None]] = {
    journal.NodeStarted: _node_started,
    journal.AddressesChanged: _addresses_changed,
    journal.TrainerReady: trainer_ready,
    journal.TrainerStopped: trainer_stopped,
    journal.BatchSkipped: batch_skipped,
    journal.TaskDiffers: task_differs,
    journal.PhaseEntered: _phase_entered,
    journal.Trained: trained,
    journal.TrainingProgress: training_progress,
    journal.TrainingHeld: training_held,
    journal.LimitsReport: limits_report,
    journal.AnchorScored: anchor_scored,
    journal.WorkAudited: work_audited,
    journal.Planned: planned,
    journal.ViewPassed: view_passed,
    journal.RoundCertified: round_certified,
    journal.RoundAveraged: round_averaged,
    journal.Alone: _alone,
    journal.QuorumReport: _quorum_report,
    journal.CaughtUp: _caught_up,
    journal.Stuck: _stuck,
    journal.PeerUp: peer_up,
    journal.PeerDown: peer_down,
    journal.PeerReport: peer_report,
    journal.PeerScored: peer_scored,
    journal.PeerForgotten: peer_forgotten,
    journal.InputRefused: _refused,
    journal.ReachReport: _reach,
    journal.TrafficReport: _traffic,
    journal.WorkDropped: work_dropped,
    journal.CheckpointWritten: _checkpoint_written,
    journal.ClockReport: _clock_report,
    journal.DiskReport: _disk_report,
    journal.Warned: _warned,
    journal.Trouble: _trouble,
    journal.ChainReport: chain_report,
    journal.RewardsReport: rewards_report,
    journal.CoverageReport: coverage_report,
    journal.CoverageChanged: coverage_changed,
    journal.PeerRegistered: peer_registered,
    journal.NodeStopped: _stopped,
    journal.OwnerOrdered: _ordered,
}


def fold(state: StatusState, event: journal.JournalEvent) -> StatusState:
    """Fold one event into `state`, and return the state.

    Never raises, and never grows the state past its bounds. Takes about 5 microseconds.
    """
    if has_sentence(state, event):
        level, text = describe(event, state.name_of)
        sentence = EventLine(at=natural(event.at), level=level, text=text)
        full = isinstance(event, journal.Warned) and event.code == journal.DISK_FULL
        state.lines.keep(
            event,
            sentence,
            state.name_of,
            kind="disk" if full else _REPEATED.get(type(event), ""),
            about_peers=isinstance(event, ABOUT_PEERS),
        )
    EFFECTS[type(event)](state, event)
    return state
