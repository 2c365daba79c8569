"""The journal: what happened to this node, as typed events.

Status, page, metrics and log lines are all folds over it.

An event says what happened, never what to show. `at` is unix seconds, put in by whoever writes the
journal (wall time is for people; no rule of a round reads it). Events with `durable` False
(frequent measurements) are folded but not written to disk.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from protocol.identity import PeerId

REFUSALS: tuple[str, ...] = (
    # Text that is no peer id, or a sender that is not who it signs as.
    "identity",
    # No signature, or one that does not verify.
    "unsigned",
    "oversized",  # a frame or field above its limit
    # Bytes that do not decode, or values out of range.
    "malformed",
    "unknown_kind",  # a message or protocol nobody serves
    "other_run",  # belongs to another run
    # From a program that does not know the rules of this run.
    "rules",
    "stale",  # belongs to a round that is over
    # A plan or cut from somebody who does not lead.
    "not_leader",
    # From or about somebody who is not in the plan.
    "not_member",
    # A plan that does not follow from its offers.
    "bad_plan",
    # Bytes that do not match the digest committed to.
    "bad_proof",
    # A slice's mean that is not what its contributions make, proved.
    "wrong_sum",
    # An offer that names a wallet which did not sign for it.
    "bad_binding",
    # Trained for a task that is not this node's.
    "other_task",
    # From somebody whom the run's admission does not let in.
    "not_admitted",
    "bad_certificate",  # a certificate that does not verify
    # Two different signed statements where one is allowed.
    "equivocation",
    "duplicate",  # said before
    "busy",  # above a rate or concurrency limit
    # A bulk connection without the certificate we know.
    "tls",
    # A connection that never became a libp2p or TLS session.
    "handshake",
    "timeout",  # began something and went silent
)
"""Every reason for which something from outside is refused; the labels of `hypergpu_receipts_total`-like counters, pre-registered at zero."""


class JournalEvent(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of all events."""

    at: float = 0.0
    durable: ClassVar[bool] = True


class NodeStarted(JournalEvent, frozen=True, kw_only=True, tag=True):
    peer: PeerId
    name: str
    role: str  # "node" or "observer"
    version: str
    addresses: tuple[str, ...]
    run: str  # run id, hex
    run_name: str
    task: str
    engine: str
    min_peers: int
    # sentences: what was assumed for want of settings.
    assumed: tuple[str, ...] = ()


class TrainerReady(JournalEvent, frozen=True, kw_only=True, tag=True):
    device: str
    parameters: int
    threads: int


class TrainerStopped(JournalEvent, frozen=True, kw_only=True, tag=True):
    """The worker died alone; it is being restarted.

    With `limit` above 0 the task failed by itself, `failures` times by now, and a person must mend
    it: after `limit` restarts there are no more (`for_good`). `fix` says what to do, `trace` is the
    traceback.
    """

    reason: str
    restarts: int
    failures: int = 0
    limit: int = 0
    for_good: bool = False
    fix: str = ""
    trace: str = ""


class BatchSkipped(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A batch raised, or its loss or gradient was not finite.

    `where` has its data indices and positions; `skipped` of `drawn` batches since the worker
    started were such. Later ones are told when their number has doubled.
    """

    what: str
    where: str
    skipped: int
    drawn: int
    trace: str = ""


class TaskDiffers(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A peer's task is not this node's: neither plans with the other.

    `difference` is the first one, as a sentence without its full stop; empty when the peer has the
    same task now.
    """

    peer: PeerId
    difference: str


class PhaseEntered(JournalEvent, frozen=True, kw_only=True, tag=True):
    """The node's own progress through a round; `reason` says why in a sentence with the numbers in
    it.
    """

    number: int
    view: int
    phase: str  # a value of protocol.round.Phase
    reason: str
    durable: ClassVar[bool] = False


class Trained(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A stretch of local training was handed over."""

    number: int
    steps: int
    samples: int
    loss: float | None
    seconds: float


class TrainingProgress(JournalEvent, frozen=True, kw_only=True, tag=True):
    samples: int
    loss: float | None
    samples_per_second: float
    durable: ClassVar[bool] = False


class Planned(JournalEvent, frozen=True, kw_only=True, tag=True):
    number: int
    view: int
    leader: PeerId
    members: tuple[PeerId, ...]
    reason: str


class ViewPassed(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A view ended without a certificate."""

    number: int
    view: int
    reason: str


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """One contributor's part in a certificate."""

    peer: PeerId
    samples: int
    loss: float | None


class RoundCertified(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A certificate was verified and (by a node) adopted.

    `outcome` is this node's own part in it: "counted", "late" (had something to offer, not in the
    plan), "lost" (in the plan, not in the cut), "idle" (nothing to offer), "observed" (by an
    observer; or a merge, or one made while this node was elsewhere).
    """

    number: int
    view: int
    certificate: str  # hex
    parent: str  # hex
    members: tuple[PeerId, ...]
    shares: tuple[Share, ...]
    samples: int
    loss: float | None
    # Hex, as this node computed it itself; empty when it only observed.
    state_digest: str
    outcome: str
    # Of this node: train, ready, scatter, reduce, vote.
    phase_seconds: dict[str, float]
    reason: str
    plan: str = ""  # why its plan was as it was
    rows: tuple[int, ...] = ()  # members of each of its rows
    # What its plan said of scatter and reduce together.
    predicted_s: float | None = None


class RoundAveraged(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A round of an engine without certificates: nothing about it is proved, `shares` are each
    member's own word, and it earns nothing.

    `outcome` is "averaged" (the mean was taken), "partial" (the engine called it a success, but
    something was missing, and nothing was taken), "apart" (most others stand elsewhere; their state
    is taken instead) or "failed".
    """

    number: int
    outcome: str
    shares: tuple[Share, ...]
    samples: int
    loss: float | None
    phase_seconds: dict[str, float]
    reason: str


class Alone(JournalEvent, frozen=True, kw_only=True, tag=True):
    """The round's end came and nobody else was there; what was learned is kept as the next offer."""

    number: int
    samples_pending: int
    reason: str


class CaughtUp(JournalEvent, frozen=True, kw_only=True, tag=True):
    """The anchor was fetched from a peer and checked against its certificate."""

    number: int
    source: PeerId
    size_bytes: int
    seconds: float


class Stuck(JournalEvent, frozen=True, kw_only=True, tag=True):
    """The node cannot go on by itself; `reason` is the sentence a person needs."""

    reason: str


class PeerUp(JournalEvent, frozen=True, kw_only=True, tag=True):
    peer: PeerId
    path: str
    address: str


class PeerDown(JournalEvent, frozen=True, kw_only=True, tag=True):
    peer: PeerId
    reason: str


class PeerReport(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A peer's own signed beacon, as received, with what we measure of the link to it."""

    peer: PeerId
    name: str
    role: str
    number: int
    tip: str  # hex
    phase: str
    samples: int
    loss: float | None
    samples_per_second: float
    device: str
    # "direct", "stream", "relay", or "" when there is no connection of our own to it.
    path: str = ""
    address: str = ""
    rtt_s: float | None = None
    jitter_s: float | None = None
    # Of what was sent to it, what had to be sent again.
    loss_share: float | None = None
    # The most that its link was seen to carry, either way; 0 when not seen at work yet.
    bits_per_second: int = 0
    # Of our connection to it: perfect, good, average, poor, unstable, or unknown.
    quality: str = ""
    quality_reason: str = ""
    # Trusted, quarantined, or probation: by the rounds of plans with us.
    standing: str = ""
    standing_reason: str = ""
    durable: ClassVar[bool] = False


class PeerForgotten(JournalEvent, frozen=True, kw_only=True, tag=True):
    """No beacon for so long that the peer no longer counts as a member."""

    peer: PeerId
    silent_s: float


class Refused(JournalEvent, frozen=True, kw_only=True, tag=True):
    """Something from outside was refused; `reason` is one of `REFUSALS`."""

    reason: str
    # May be empty when nobody was authenticated.
    peer: str
    detail: str
    count: int = 1
    durable: ClassVar[bool] = False


class TrafficReport(JournalEvent, frozen=True, kw_only=True, tag=True):
    control_sent: int
    control_received: int
    bulk_sent: int
    bulk_received: int
    connections: int
    durable: ClassVar[bool] = False


class WorkDropped(JournalEvent, frozen=True, kw_only=True, tag=True):
    """Work too old to be offered (`max_carry_rounds`) or undone by a restart."""

    samples: int
    reason: str


class CheckpointWritten(JournalEvent, frozen=True, kw_only=True, tag=True):
    number: int
    size_bytes: int
    seconds: float
    durable: ClassVar[bool] = False


# The code of every warning that the disk took nothing.
DISK_FULL = "DISK_FULL"
# How such a warning begins that stops a node's part in rounds.
NOT_OFFERED = "nothing can be offered"


class Warned(JournalEvent, frozen=True, kw_only=True, tag=True):
    """Something a person may want to know that stops nothing: a disk that is full, a damaged file
    passed over.
    """

    code: str
    message: str


class Trouble(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A condition that lasts until a person acts: it stays in the verdict.

    The same `code` with an empty message says that it is over.

    `level` is "warning" for what training goes on with as before, "bad" for what makes the work
    worthless.
    """

    code: str
    level: str
    message: str


class ChainReport(JournalEvent, frozen=True, kw_only=True, tag=True):
    """How this node stands with the run's chain.

    `state` is "none" (the run names one, this node is not set up for it), "locked" (no password for
    its wallet), "waiting" (not asked yet), "down", "refused", "wrong" (another chain than the
    run's) or "live" (registered, and its last heartbeat was read back).
    """

    profile: str
    state: str
    account: str = ""
    payout: str = ""
    samples: int = 0  # cumulative, as the last heartbeat said
    # Base units, as text: they outgrow what JSON readers keep exact.
    claimed: str = ""
    reason: str = ""


class PeerRegistered(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A peer's registration moved; `state` is a value of `protocol.chain.registration.RegistrationState`."""

    peer: PeerId
    state: str
    wallet: str = ""
    reason: str = ""
    durable: ClassVar[bool] = False


class Stopped(JournalEvent, frozen=True, kw_only=True, tag=True):
    reason: str


AnyEvent = (
    NodeStarted
    | TrainerReady
    | TrainerStopped
    | BatchSkipped
    | TaskDiffers
    | PhaseEntered
    | Trained
    | TrainingProgress
    | Planned
    | ViewPassed
    | RoundCertified
    | RoundAveraged
    | Alone
    | CaughtUp
    | Stuck
    | PeerUp
    | PeerDown
    | PeerReport
    | PeerForgotten
    | Refused
    | TrafficReport
    | WorkDropped
    | CheckpointWritten
    | Warned
    | Trouble
    | ChainReport
    | PeerRegistered
    | Stopped
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)


def encode_event(event: JournalEvent) -> bytes:
    """One line of JSON without its line feed."""
    return _encoder.encode(event)


def decode_event(line: bytes) -> AnyEvent:
    """Raises `msgspec.ValidationError` or `msgspec.DecodeError` for what is no event."""
    return _decoder.decode(line)
