"""The record of this node in a status.

As in `records.py`, the field names are a contract, and the imports must load quickly.
"""

from __future__ import annotations

import msgspec

from protocol.limits.limits import LimitPause
from protocol.status.peer_records import PeerId


class ReachSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Whether others can call this node, and what it relays.

    `callable` is None until a member has tried. `nat` is "unknown", "none", "cone" or "symmetric".
    `observed` is the address at which members see this node. `unreachable` are peers to which every
    path failed lately. `relay_sessions` are the connections that this node relays now.
    """

    callable: bool | None = None
    nat: str = "unknown"
    observed: str = ""
    text: str = ""
    unreachable: tuple[PeerId, ...] = ()
    relay_sessions: int = 0
    relayed_bytes: int = 0


class LimitsSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The limits that the volunteer set.

    `pauses` are those that pause training now. `caps` say what training may use, and `blind` which
    limits this machine cannot keep.
    """

    pauses: tuple[LimitPause, ...] = ()
    caps: tuple[str, ...] = ()
    blind: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """Why training is paused and until when, without a full stop; empty while it is not."""
        said = [f"until {pause.until}: {pause.reason}" for pause in self.pauses]
        return f"Training is paused {', and '.join(said)}" if said else ""


class ClockSummary(msgspec.Struct, frozen=True, kw_only=True):
    """This machine's clock beside those of `compared` peers.

    It is `offset_s` ahead of most of them; `text` says so, and is empty where the clock is right.
    """

    compared: int = 0
    offset_s: float = 0.0
    text: str = ""


class NodeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """This node.

    `rounds_missed` counts views without a certificate. `samples_dropped` counts work that was too
    old to be offered. `last_counted_at` is when a certificate last counted this node's work; for an
    observer, when it last verified a certificate. `batches_skipped` counts since the worker
    started. `failure` says why the task fails and is empty while it trains; `failure_trace` has the
    lines of the traceback. `computing` is the share of the last round's time in which steps were
    computed. `trained_s` is the time in which steps were computed, since the start.
    `disk_written_bytes` counts since the start, `disk_hourly_bytes` in the last hour.
    """

    peer: PeerId
    name: str
    role: str
    version: str
    addresses: tuple[str, ...]
    phase: str
    phase_reason: str
    device: str
    samples_total: int
    samples_per_second: float
    samples_pending: int
    loss: float | None
    rounds_counted: int
    rounds_late: int
    rounds_lost: int
    rounds_idle: int
    worker_restarts: int
    started_at: float
    rounds_missed: int = 0
    samples_dropped: int = 0
    last_counted_at: float = 0.0
    batches_skipped: int = 0
    failure: str = ""
    failure_trace: tuple[str, ...] = ()
    computing: float | None = None
    trained_s: float = 0.0
    disk_written_bytes: int = 0
    disk_hourly_bytes: int = 0
    reach: ReachSummary = ReachSummary()
    # Why the disk refuses to write now; empty while it does not.
    disk_refusal: str = ""
    limits: LimitsSummary = LimitsSummary()
    clock: ClockSummary = ClockSummary()
