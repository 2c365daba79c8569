"""Which events get a sentence in the list of events of a status."""

from __future__ import annotations

from protocol import journal
from protocol.status.figures import natural
from protocol.status.round_effects import is_known
from protocol.status.state import StatusState

REFUSAL_SILENCE_S = 60.0
"""Refusals are counted. Each reason gets one sentence in this many seconds."""

_QUIET = (
    journal.PhaseEntered,
    journal.TrainingProgress,
    journal.AnchorScored,
    journal.PeerReport,
    journal.PeerScored,
    journal.ReachReport,
    journal.TrafficReport,
    journal.CheckpointWritten,
    journal.ClockReport,
    journal.DiskReport,
    journal.QuorumReport,
    journal.RewardsReport,
    journal.CoverageReport,
)
ABOUT_PEERS = (
    journal.TaskDiffers,
    journal.PeerRegistered,
    journal.PeerUp,
    journal.PeerDown,
    journal.PeerForgotten,
    journal.InputRefused,
)


def has_sentence(state: StatusState, event: journal.JournalEvent) -> bool:
    """Return whether the event gets a sentence among the last events."""
    if isinstance(event, _QUIET):
        return False
    if isinstance(event, journal.InputRefused):
        since = natural(event.at) - state.refusal_shown_at.get(event.reason, -REFUSAL_SILENCE_S)
        if 0 <= since < REFUSAL_SILENCE_S:
            return False
        if event.reason in state.refusals:
            state.refusal_shown_at[event.reason] = natural(event.at)
    if isinstance(event, journal.RoundCertified):
        return not is_known(state, event)
    # One sentence until the node is no longer alone, not one per round.
    if isinstance(event, journal.Alone):
        return not state.alone
    return True
