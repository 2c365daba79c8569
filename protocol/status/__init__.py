"""The status of a node or observer: one record, folded from the journal, that the command line, the
page, the JSON and /metrics all render.

`fold(state, event)` and `status_at(state, now)` are pure; see `protocol/journal.py` for the events.
The records are a contract.

Reading a status must not load what writing one needs (the journal's identities bring cryptography,
60 ms that `hypergpud status` does not have), so the writing half is looked up when it is first
asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from protocol.status.records import (
    KEPT_EVENTS,
    KEPT_PEERS,
    KEPT_POINTS,
    KEPT_ROUNDS,
    EventLine,
    LossPoint,
    NetworkFigures,
    NodeSummary,
    PeerSummary,
    RoundSummary,
    RunSummary,
    Status,
)

if TYPE_CHECKING:
    from protocol.status.event_fold import fold
    from protocol.status.event_text import describe
    from protocol.status.state import StatusState
    from protocol.status.verdict import status_at

__all__ = [
    "KEPT_EVENTS",
    "KEPT_PEERS",
    "KEPT_POINTS",
    "KEPT_ROUNDS",
    "EventLine",
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
    "StatusState": "protocol.status.state",
    "fold": "protocol.status.event_fold",
    "status_at": "protocol.status.verdict",
    "describe": "protocol.status.event_text",
}


def __getattr__(name: str) -> Any:
    if name in _WRITING:
        return getattr(import_module(_WRITING[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
