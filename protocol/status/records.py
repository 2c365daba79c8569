"""The status records: a contract.

Their field names are those of `/api/v1/status` and of `hypergpud status --json`.

Nothing of ours is imported here: `hypergpud status` reads these records and must answer at once,
and `protocol.identity`, where `PeerId` lives, brings a cryptography library with it.
"""

from __future__ import annotations

import msgspec

PeerId = str  # the alias of protocol.identity

KEPT_ROUNDS = 40  # the page's strip of rounds
KEPT_EVENTS = 50  # the page's list of last events
# Points of the loss curve: one for each pixel column of its widest drawing.
KEPT_POINTS = 600
# Peers shown; beacons are free to make, so somebody could sign them with any number of keys.
KEPT_PEERS = 4096


class EventLine(msgspec.Struct, frozen=True, kw_only=True):
    """An event in plain words. `level` is "info", "good", "warning" or "bad"."""

    at: float
    level: str
    text: str


class NodeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """This node."""

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
    rounds_missed: int = 0  # views that passed without a certificate
    samples_dropped: int = 0  # work too old to be offered
    # When a certificate last counted our work (an observer: when one was last verified).
    last_counted_at: float = 0.0
    # That raised or were not finite, since the worker started.
    batches_skipped: int = 0
    # Why the task fails, or trains nothing; empty while it trains.
    failure: str = ""
    failure_trace: tuple[str, ...] = ()  # the lines of its traceback
    # The share of the last round's time in which steps were computed.
    computing: float | None = None


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The training job, as far as this node has verified its certificates."""

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
    # That train, this one included, heard of in the last `HEARD_S` seconds.
    nodes: int = 0
    # Of those nodes together, by their own word.
    samples_per_second: float = 0.0
    plan: str = ""  # why the last round's plan was as it was
    prediction_error: float | None = (
        # Of what plans said their exchange would take: the median of the rounds kept, as a share of
        # what it took.
        None
    )


class RoundSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One certified or missed round; `outcome` is RoundCertified's, or "missed" for a view that
    passed.
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
    group_sizes: tuple[int, ...] = ()  # members of each group
    predicted_s: float | None = None  # of scatter and reduce together

    @property
    def exchange_s(self) -> float:
        """Seconds that scatter and reduce took this node; 0 where it was not there."""
        return self.phase_seconds.get("scatter", 0.0) + self.phase_seconds.get("reduce", 0.0)


class LossPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One point of the loss curve; `samples` is how many were certified up to and with this round."""

    number: int
    at: float
    samples: int
    loss: float


class PeerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Another node or observer, from its signed beacons and our link to it.

    `path` is "direct", "relayed", "libp2p" (connected, but gradients go over that connection, for
    want of a direct path for them) or "" for no link of ours.
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
    # Of what was sent to it, what had to be sent again.
    loss_share: float | None = None
    # The most that its link was seen to carry; 0 when not seen at work.
    bits_per_second: int = 0
    # Of our connection: perfect, good, average, poor, unstable, unknown; "" without one.
    quality: str = ""
    quality_reason: str = ""
    # Trusted, quarantined, or probation, by the rounds of plans with us.
    standing: str = ""
    standing_reason: str = ""
    # 0 to 1,000: of 1,000 rounds of the last week, how many counted its work; None while it is new.
    reputation: int | None = None
    # "high-performance", "standard" or "basic", by certified samples a round; empty while none is
    # certified.
    pool: str = ""
    registration: str = (
        # "pending", "challenged", "verified", "approved", "rejected", "expired", "suspended"; empty
        # where the run has no chain.
        ""
    )
    # A sentence, when it suddenly does much more than before.
    alert: str = ""


class NetworkFigures(msgspec.Struct, frozen=True, kw_only=True):
    connections: int = 0
    control_sent: int = 0
    control_received: int = 0
    bulk_sent: int = 0
    bulk_received: int = 0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Everything there is to show, at one instant."""

    as_of: float
    verdict: str
    level: str
    you: NodeSummary
    run: RunSummary
    rounds: tuple[RoundSummary, ...]  # newest first, at most KEPT_ROUNDS
    # At most KEPT_PEERS, the connected ones first.
    peers: tuple[PeerSummary, ...]
    network: NetworkFigures
    refusals: dict[str, int]  # every word of REFUSALS
    # A sentence; "no chain: this run pays nothing" until a run names one.
    rewards: str
    events: tuple[EventLine, ...]  # newest first, at most KEPT_EVENTS
    # Oldest first, at most KEPT_POINTS, evenly thinned over the whole run.
    curve: tuple[LossPoint, ...] = ()
