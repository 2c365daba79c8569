"""The journal: what happened to this node, as typed events.

Status, page, metrics and log lines are folds over the journal. An event says what happened, never
what to show. Wall time is for people; no rule of a round reads it.

base.py      JournalEvent, the base of all events
node.py      start and end, warnings, lasting troubles
training.py  the trainer, and work that was dropped
rounds.py    plans, views, certificates, catching up, checkpoints
peers.py     connections, beacons, refused input, traffic
inference.py which layers of a model the swarm serves
chain.py     this node's account, and its peers' registrations

To add an event, define it in one of these modules and add it to `AnyEvent`. Tests then ask for its
sentence (`protocol/status/event_text.py`) and its effect on the status
(`protocol/status/event_fold.py`).
"""

from __future__ import annotations

import msgspec

from protocol.journal.base import JournalEvent
from protocol.journal.chain import ChainReport, PeerRegistered, RewardsReport
from protocol.journal.inference import CoverageChanged, CoverageReport, ServedStage
from protocol.journal.node import (
    DISK_FULL,
    NOT_OFFERED,
    AddressesChanged,
    ClockReport,
    DiskReport,
    NodeStarted,
    NodeStopped,
    OwnerOrdered,
    Trouble,
    Warned,
)
from protocol.journal.peers import (
    REFUSALS,
    InputRefused,
    PeerDown,
    PeerForgotten,
    PeerReport,
    PeerScored,
    PeerUp,
    ReachReport,
    TrafficReport,
)
from protocol.journal.rounds import (
    Alone,
    CaughtUp,
    CheckpointWritten,
    Contributor,
    MemberPlace,
    Newcomer,
    PhaseEntered,
    Planned,
    QuorumReport,
    RoundAveraged,
    RoundCertified,
    Stuck,
    ViewPassed,
)
from protocol.journal.training import (
    AnchorScored,
    BatchSkipped,
    LimitsReport,
    TaskDiffers,
    Trained,
    TrainerReady,
    TrainerStopped,
    TrainingHeld,
    TrainingProgress,
    WorkAudited,
    WorkDropped,
)

__all__ = [
    "DISK_FULL",
    "NOT_OFFERED",
    "REFUSALS",
    "AddressesChanged",
    "Alone",
    "AnchorScored",
    "AnyEvent",
    "BatchSkipped",
    "CaughtUp",
    "ChainReport",
    "CheckpointWritten",
    "ClockReport",
    "Contributor",
    "CoverageChanged",
    "CoverageReport",
    "DiskReport",
    "InputRefused",
    "JournalEvent",
    "LimitsReport",
    "MemberPlace",
    "Newcomer",
    "NodeStarted",
    "NodeStopped",
    "OwnerOrdered",
    "PeerDown",
    "PeerForgotten",
    "PeerRegistered",
    "PeerReport",
    "PeerScored",
    "PeerUp",
    "PhaseEntered",
    "Planned",
    "QuorumReport",
    "ReachReport",
    "RewardsReport",
    "RoundAveraged",
    "RoundCertified",
    "ServedStage",
    "Stuck",
    "TaskDiffers",
    "TrafficReport",
    "Trained",
    "TrainerReady",
    "TrainerStopped",
    "TrainingHeld",
    "TrainingProgress",
    "Trouble",
    "ViewPassed",
    "Warned",
    "WorkAudited",
    "WorkDropped",
    "decode_event",
    "encode_event",
]

AnyEvent = (
    NodeStarted
    | AddressesChanged
    | TrainerReady
    | TrainerStopped
    | LimitsReport
    | TrainingHeld
    | BatchSkipped
    | TaskDiffers
    | PhaseEntered
    | Trained
    | TrainingProgress
    | AnchorScored
    | WorkAudited
    | Planned
    | ViewPassed
    | RoundCertified
    | RoundAveraged
    | Alone
    | CaughtUp
    | QuorumReport
    | Stuck
    | PeerUp
    | PeerDown
    | PeerReport
    | PeerScored
    | PeerForgotten
    | InputRefused
    | ReachReport
    | TrafficReport
    | WorkDropped
    | CheckpointWritten
    | ClockReport
    | DiskReport
    | Warned
    | Trouble
    | ChainReport
    | RewardsReport
    | CoverageReport
    | CoverageChanged
    | PeerRegistered
    | NodeStopped
    | OwnerOrdered
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)


def encode_event(event: JournalEvent) -> bytes:
    """Encode an event as one line of JSON, without the line feed."""
    return _encoder.encode(event)


def decode_event(line: bytes) -> AnyEvent:
    """Decode one line of a journal.

    Raises:
        msgspec.DecodeError: for a line that is not an event. `msgspec.ValidationError` is a kind of
        it.
    """
    return _decoder.decode(line)
