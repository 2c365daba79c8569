"""Every event as one sentence that a person can read without knowing the code.

`describe(event, name_of)` covers every event of `protocol.journal.AnyEvent`; a test holds it to
that. It passes on reasons that their author already put into words: plans, views, refusals.

training_text.py  the trainer and its work
round_text.py     rounds, plans, certificates
peer_text.py      connections, beacons, refused input
node_text.py      the node, the disk, the chain, served models
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from protocol import journal
from protocol.status import node_text, peer_text, round_text, training_text
from protocol.status.figures import clean, tail
from protocol.status.text_parts import LeveledText, NameOf

# Four lines on a telephone.
MAX_SENTENCE_CHARS = 400

WORDS: dict[type[journal.JournalEvent], Callable[[Any, NameOf], LeveledText]] = {
    journal.NodeStarted: node_text.node_started,
    journal.NodeStopped: node_text.node_stopped,
    journal.OwnerOrdered: node_text.owner_ordered,
    journal.AddressesChanged: node_text.addresses_changed,
    journal.Warned: node_text.warned,
    journal.Trouble: node_text.trouble,
    journal.ChainReport: node_text.chain_report,
    journal.RewardsReport: node_text.rewards_report,
    journal.CoverageReport: node_text.coverage_report,
    journal.CoverageChanged: node_text.coverage_changed,
    journal.CheckpointWritten: node_text.checkpoint_written,
    journal.ClockReport: node_text.clock_report,
    journal.DiskReport: node_text.disk_report,
    journal.TrainerReady: training_text.trainer_ready,
    journal.TrainerStopped: training_text.trainer_stopped,
    journal.BatchSkipped: training_text.batch_skipped,
    journal.TaskDiffers: training_text.task_differs,
    journal.Trained: training_text.trained,
    journal.TrainingProgress: training_text.training_progress,
    journal.TrainingHeld: training_text.training_held,
    journal.LimitsReport: training_text.limits_report,
    journal.AnchorScored: training_text.anchor_scored,
    journal.WorkAudited: training_text.work_audited,
    journal.WorkDropped: training_text.work_dropped,
    journal.PhaseEntered: round_text.phase_entered,
    journal.Planned: round_text.planned,
    journal.ViewPassed: round_text.view_passed,
    journal.RoundCertified: round_text.round_certified,
    journal.RoundAveraged: round_text.round_averaged,
    journal.Alone: round_text.alone,
    journal.QuorumReport: round_text.quorum_report,
    journal.CaughtUp: round_text.caught_up,
    journal.Stuck: round_text.stuck,
    journal.PeerUp: peer_text.peer_up,
    journal.PeerDown: peer_text.peer_down,
    journal.PeerReport: peer_text.peer_report,
    journal.PeerScored: peer_text.peer_scored,
    journal.PeerForgotten: peer_text.peer_forgotten,
    journal.PeerRegistered: peer_text.peer_registered,
    journal.InputRefused: peer_text.input_refused,
    journal.ReachReport: peer_text.reach_report,
    journal.TrafficReport: peer_text.traffic_report,
}


def describe(event: journal.JournalEvent, name_of: NameOf = tail) -> LeveledText:
    """Return the level and the sentence of an event.

    Args:
        event: the event.
        name_of: returns the name of a peer for a sentence.
    """
    level, text = WORDS[type(event)](event, name_of)
    return level, clean(text, MAX_SENTENCE_CHARS)


class EventLog:
    """Describes events for a log, where a lasting condition appears once and not in every round."""

    def __init__(self) -> None:
        self._waiting = False

    def describe(self, event: journal.JournalEvent, name_of: NameOf = tail) -> LeveledText | None:
        """Return the level and the sentence of an event, or None if the log says it already."""
        known = self._waiting
        if isinstance(event, journal.Alone):
            self._waiting = True
        elif isinstance(event, journal.Planned | journal.RoundCertified | journal.RoundAveraged):
            self._waiting = False
        return None if known and isinstance(event, journal.Alone) else describe(event, name_of)
