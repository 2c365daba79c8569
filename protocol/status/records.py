"""The status records, which are a contract.

Their field names are those of `/api/v1/status` and of `hypergpud status --json`.

Of the project, this module imports only what loads quickly: `hypergpud status` reads these records
and must answer at once, but `protocol.identity`, where `PeerId` lives, loads a
cryptography library.
"""

from __future__ import annotations

import msgspec

from protocol.status.reference import ReferenceCurve
from protocol.status.round_points import RoundPoint
from protocol.status.totals import Totals

# The same as protocol.identity.PeerId.
PeerId = str

KEPT_ROUNDS = 40
"""Rounds of the page's strip."""

KEPT_EVENTS = 50
"""Lines of the page's list of events."""

KEPT_POINTS = 600
"""Points of the loss curve: one for each pixel column of its widest drawing."""

KEPT_PEERS = 4096
"""Peers in a status. Beacons are free, so a stranger could sign them with any number of keys."""

KEPT_LOST = 128
"""Lost peers in a status: two full plans."""

LOST_KEPT_S = 3600.0
"""How long a lost peer is shown: long enough for a person who looks in once an hour."""


class EventLine(msgspec.Struct, frozen=True, kw_only=True):
    """An event in plain words. `level` is "info", "good", "warning" or "bad"."""

    at: float
    level: str
    text: str


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


class QuorumSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the voters of a run of rules 4 that are connected may certify.

    Of `voters`, `connected` are connected, and a full certificate needs `needed`. `patient` says
    that this node goes on with fewer. `last_full` is the number of the last full certificate that
    this node adopted, and `full` whether the one that it is at is full. `reason` says why nothing
    is certified; empty where something may be.
    """

    voters: int
    connected: int
    needed: int
    patient: bool
    last_full: int
    full: bool
    reason: str = ""


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The training job, as far as this node has verified its certificates.

    `nodes` counts the nodes that train, this one included, heard from in the last `HEARD_S`
    seconds. `samples_per_second` is the sum that these nodes report. `plan` says why the last plan
    formed its groups. `prediction_error` is the median error of the kept rounds' predictions, as a
    share of the time that the exchange took.

    `loss` is what the members claim for their own training data. `held_out` is the mean of the
    members' scores of `held_out_round`, the newest scored certificate: `held_out_scorers` members
    scored `held_out_samples` samples that no member trains on.
    """

    run: str
    name: str
    task: str
    engine: str
    number: int
    tip: str
    state_digest: str
    view: int
    parameters: int
    rounds_certified: int
    samples_certified: int
    loss_first: float | None
    loss: float | None
    round_seconds: float | None
    nodes: int = 0
    samples_per_second: float = 0.0
    plan: str = ""
    # The length of the next round, and why; None before the first certificate, and where all rounds
    # of the run have one length.
    next_round_s: float | None = None
    next_round_reason: str = ""
    prediction_error: float | None = None
    held_out_first: float | None = None
    held_out: float | None = None
    held_out_round: int = 0
    held_out_samples: int = 0
    held_out_scorers: int = 0
    # Who may take part, and the run's owner, who invites; empty where it has none.
    admits: str = "open"
    owner: PeerId = ""
    # None before the first report, and in runs of rules 2 and 3.
    quorum: QuorumSummary | None = None
    # The usual time between two certificates: the median of the last ones, and at least what the
    # last plan chose. None before the second certificate.
    usual_round_s: float | None = None
    # What the run's owner ordered: "pause", "stop", or empty while training goes on.
    order: str = ""
    # Why the run counts as standing still; empty while certificates come as usual.
    standstill: str = ""


class RoundSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One certified or failed round.

    `outcome` is that of `RoundCertified`, or "missed" for a view that passed. `group_sizes` has the
    members of each group. `predicted_s` is for scatter and reduce together. `loss` is what the
    members claim for their own training data, `held_out` the mean of the scores of
    `held_out_scorers` members.
    """

    number: int
    view: int
    certificate: str
    state_digest: str
    at: float
    outcome: str
    members: tuple[PeerId, ...]
    contributors: tuple[PeerId, ...]
    samples: int
    loss: float | None
    phase_seconds: dict[str, float]
    reason: str
    plan: str = ""
    group_sizes: tuple[int, ...] = ()
    predicted_s: float | None = None
    held_out: float | None = None
    held_out_scorers: int = 0
    # Contributors from whose work the clip took a part, as far as this node summed it.
    clipped: tuple[PeerId, ...] = ()
    # Samples of each of `contributors`, in the same order.
    contributed: tuple[int, ...] = ()

    @property
    def exchange_s(self) -> float:
        """Seconds of scatter and reduce on this node; 0 if it took no part."""
        return self.phase_seconds.get("scatter", 0.0) + self.phase_seconds.get("reduce", 0.0)


class LossPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One point of the training loss that the members claim.

    `samples` is how many were certified up to and with this round.
    """

    number: int
    at: float
    samples: int
    loss: float


class HeldOutPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One point of the held-out loss: `scorers` members scored `scored` held-out samples.

    `samples` is how many were certified up to and with this round. `training` is the training loss
    that the members claim for it.
    """

    number: int
    at: float
    samples: int
    loss: float
    training: float | None
    scored: int
    scorers: int


class PeerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Another node or observer, from its signed beacons and this node's link to it.

    `path` is "direct", "relayed", "libp2p" (connected, but gradients share the control connection
    because no direct path exists), or "" without a link. `loss_share` is the share of packets that
    were sent again. `bits_per_second` is the most that the link was seen to carry, 0 before its
    first use. `quality` is a class of `protocol.network.quality`, or "" without a link. `standing`
    is "trusted", "quarantined" or "probation". `reputation` is 0 to 1,000: the rounds in 1,000
    that counted its work during the last week; None while the peer is new. `pool` is
    "high-performance", "standard" or "basic", by certified samples per round, or empty.
    `registration` is a value of
    `RegistrationState`, or empty if the run has no chain. `alert` is a sentence if the peer
    suddenly does much more than before. `lost_at` is when the last connection broke or the peer
    fell silent, and `lost_reason` says why; 0 and empty while the peer is heard.
    """

    peer: PeerId
    name: str
    role: str
    path: str
    address: str
    rtt_s: float | None
    number: int
    tip: str
    phase: str
    samples: int
    loss: float | None
    samples_per_second: float
    device: str
    last_seen: float
    connected: bool
    jitter_s: float | None = None
    loss_share: float | None = None
    bits_per_second: int = 0
    quality: str = ""
    quality_reason: str = ""
    standing: str = ""
    standing_reason: str = ""
    reputation: int | None = None
    pool: str = ""
    registration: str = ""
    alert: str = ""
    lost_at: float = 0.0
    lost_reason: str = ""


class NewcomerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A peer of the last plan that is no member, and why."""

    peer: PeerId
    reason: str


class AuditSummary(msgspec.Struct, frozen=True, kw_only=True):
    """This voter's newest audit of a peer.

    `audits` of the last three counted. `favours` is None before a verdict. `reason` says why the
    score was not measured.
    """

    peer: PeerId
    number: int
    score: float
    audits: int
    favours: bool | None
    reason: str = ""


class MembershipSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Who votes after the last certificate of a run of rules 4, and who is a newcomer.

    Of the last round's `contributors`, `clipped` weighed less than their samples. `is_degraded`
    says that not more than half of the voters signed the last certificate, `last_full_at` when the
    last one was signed by more. `audits` are this node's own, the newest first.
    """

    voters: tuple[PeerId, ...] = ()
    newcomers: tuple[NewcomerSummary, ...] = ()
    clipped: int = 0
    contributors: int = 0
    is_degraded: bool = False
    last_full_at: float | None = None
    audits: tuple[AuditSummary, ...] = ()


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
    totals: Totals = Totals()
    # The charts over time, the oldest first and evenly thinned.
    points: tuple[RoundPoint, ...] = ()
