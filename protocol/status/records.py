"""The status record, which is a contract.

Its field names, and those of its parts, are those of `/api/v1/status` and of
`hypergpud status --json`.

Of the project, the modules of these records import only what loads quickly: `hypergpud status`
reads them and must answer at once, but `protocol.identity`, where `PeerId` lives, loads a
cryptography library.
"""

from __future__ import annotations

import msgspec

from protocol.status.coverage_records import CoverageSummary
from protocol.status.group_records import GroupMap, MemberMove
from protocol.status.node_records import NodeSummary
from protocol.status.peer_records import MembershipSummary, PeerSummary
from protocol.status.reference import ReferenceCurve
from protocol.status.reward_records import RewardsSummary
from protocol.status.round_points import RoundPoint
from protocol.status.run_records import HeldOutPoint, LossPoint, RoundSummary, RunSummary
from protocol.status.totals import Totals

KEPT_EVENTS = 50
"""Lines of the page's list of events."""


class EventLine(msgspec.Struct, frozen=True, kw_only=True):
    """An event in plain words. `level` is "info", "good", "warning" or "bad"."""

    at: float
    level: str
    text: str


class NetworkFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes sent and received since the start, and the open connections."""

    connections: int = 0
    control_sent: int = 0
    control_received: int = 0
    bulk_sent: int = 0
    bulk_received: int = 0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Everything there is to show, at one instant.

    `rounds` and `events` begin with the newest. `peers` begin with the connected ones. `refusals`
    has every word of `REFUSALS`. `rewards` is a sentence. `curve` and `held_out` begin with the
    oldest point and are evenly thinned over the whole run. `reference` is a curve to
    compare with, if an observer was given one. `lost` has the peers that were lost within the last
    `LOST_KEPT_S`, the last one first.
    """

    as_of: float
    verdict: str
    level: str
    you: NodeSummary
    run: RunSummary
    rounds: tuple[RoundSummary, ...]
    peers: tuple[PeerSummary, ...]
    network: NetworkFigures
    refusals: dict[str, int]
    rewards: str
    events: tuple[EventLine, ...]
    curve: tuple[LossPoint, ...] = ()
    held_out: tuple[HeldOutPoint, ...] = ()
    reference: ReferenceCurve | None = None
    # None in runs of rules 2 and 3, whose certificates name no voters.
    membership: MembershipSummary | None = None
    lost: tuple[PeerSummary, ...] = ()
    # What the run's chain holds; None where the run pays nothing, or the chain was not asked yet.
    money: RewardsSummary | None = None
    totals: Totals = Totals()
    # Models that the swarm serves.
    coverage: tuple[CoverageSummary, ...] = ()
    # The groups of the last plan; None before the first certificate.
    groups: GroupMap | None = None
    # Members that came and went, the oldest first.
    moves: tuple[MemberMove, ...] = ()
    # The charts over time, the oldest first and evenly thinned.
    points: tuple[RoundPoint, ...] = ()
