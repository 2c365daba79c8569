"""The status of a node or observer: one record, folded from the journal.

The command line, the page, the JSON and /metrics all render this record. Its fields are a contract.

records.py           the status record; its parts are in the next three
node_records.py      this node, and whether others can call it
run_records.py       the run, its rounds and the points of its loss curves
peer_records.py      other peers, voters and newcomers
reward_records.py    what the run's chain holds for its members
group_records.py     the groups of the last plan, and members that came and went
coverage_records.py  who serves which layers of a model
status_record.py     `status_at(state, now)`: the status at one instant
verdict.py           the one sentence that answers "is it working?"
round_verdict.py     its part about this node's last rounds
run_verdict.py       its part about the run, for an observer
totals.py            what was counted since the start
round_points.py      the points of the charts over time
work_shares.py       each peer's part in the last rounds
order_progress.py    which nodes follow the owner's order
standstill.py        the deadline of the next certificate, by the run's own rhythm
state.py             what the fold keeps between events
held_out_scores.py   the held-out loss of each certificate, from its members' scores
event_fold.py        `fold(state, event)`: how each event changes the state (with *_effects.py)
shown_events.py      which events get a sentence
event_lines.py       the list of events that a status shows
event_folding.py     equal events as one line: "Rounds 96-98 are certified"
event_text.py        `describe(event)`: each event as a sentence (with *_text.py)
figures.py           how numbers and names are written for people

Reading a status must not load what writing one needs: the journal's identities bring cryptography,
60 ms that `hypergpud status` does not have. So the writing half is imported when it is first asked
for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from protocol.status.node_records import NodeSummary
from protocol.status.peer_records import KEPT_PEERS, PeerSummary
from protocol.status.records import KEPT_EVENTS, EventLine, NetworkFigures, Status
from protocol.status.run_records import (
    KEPT_POINTS,
    KEPT_ROUNDS,
    HeldOutPoint,
    LossPoint,
    RoundSummary,
    RunSummary,
)

if TYPE_CHECKING:
    from protocol.status.event_fold import fold
    from protocol.status.event_text import EventLog, describe
    from protocol.status.state import StatusState
    from protocol.status.status_record import status_at

__all__ = [
    "KEPT_EVENTS",
    "KEPT_PEERS",
    "KEPT_POINTS",
    "KEPT_ROUNDS",
    "EventLine",
    "EventLog",
    "HeldOutPoint",
    "LossPoint",
    "NetworkFigures",
    "NodeSummary",
    "PeerSummary",
    "RoundSummary",
    "RunSummary",
    "Status",
    "StatusState",
    "describe",
    "fold",
    "status_at",
]

_WRITING = {
    "EventLog": "protocol.status.event_text",
    "StatusState": "protocol.status.state",
    "fold": "protocol.status.event_fold",
    "status_at": "protocol.status.status_record",
    "describe": "protocol.status.event_text",
}


def __getattr__(name: str) -> Any:
    if name in _WRITING:
        return getattr(import_module(_WRITING[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
