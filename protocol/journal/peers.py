"""Journal events of peers: connections, beacons, and what was refused from outside."""

from __future__ import annotations

from typing import ClassVar

from protocol.identity import PeerId
from protocol.journal.base import JournalEvent

REFUSALS: tuple[str, ...] = (
    # Text that is no peer id, or a sender that is not the signer.
    "identity",
    # No signature, or a signature that does not verify.
    "unsigned",
    # A frame or field above its size limit.
    "oversized",
    # Bytes that do not decode, or values out of range.
    "malformed",
    # A message or protocol that no handler serves.
    "unknown_kind",
    # A message of another run.
    "other_run",
    # A program that does not know the rules of this run.
    "rules",
    # A message of a round that is over.
    "stale",
    # A plan or inclusion from a peer that does not lead.
    "not_leader",
    # A message from or about a peer that is not in the plan.
    "not_member",
    # A plan that does not follow from its offers.
    "bad_plan",
    # Bytes that do not match the committed digest.
    "bad_proof",
    # A slice's mean that provably does not follow from its contributions.
    "wrong_sum",
    # An offer that names a wallet which did not sign for the peer.
    "bad_binding",
    # Work for a task that is not this node's.
    "other_task",
    # A peer that the run's admission rule excludes.
    "not_admitted",
    # A certificate that does not verify.
    "bad_certificate",
    # Two different signed statements where one is allowed.
    "equivocation",
    # A replayed message.
    "duplicate",
    # A message above a rate or concurrency limit.
    "busy",
    # A bulk connection whose certificate is not the known one.
    "tls",
    # A connection that never became a libp2p or TLS session.
    "handshake",
    # A peer that began an exchange and then went silent.
    "timeout",
)
"""Every reason for which input from outside is refused.

The metric `hypergpu_refusals_total` has one series for each, from the start.
"""


class PeerUp(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A connection to a peer opened."""

    peer: PeerId
    path: str
    address: str


class PeerDown(JournalEvent, frozen=True, kw_only=True, tag=True):
    """The last connection to a peer closed."""

    peer: PeerId
    reason: str


class PeerReport(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A peer's signed beacon, and what this node measures of the link to that peer."""

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
    # "direct", "libp2p", "relayed", or empty without a connection.
    path: str = ""
    address: str = ""
    rtt_s: float | None = None
    jitter_s: float | None = None
    # The share of the packets sent to the peer that were retransmitted.
    loss_share: float | None = None
    # The highest rate seen on the link in either direction; 0 before the first transfer.
    bits_per_second: int = 0
    # A class of protocol.network.quality, or empty.
    quality: str = ""
    quality_reason: str = ""
    # "trusted", "quarantined" or "probation", by the peer's part in this node's rounds.
    standing: str = ""
    standing_reason: str = ""
    durable: ClassVar[bool] = False


class PeerScored(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A peer's beacon says how the peer scored the anchor of a certificate on held-out samples.

    Each beacon repeats the peer's newest score.
    """

    peer: PeerId
    number: int
    # Hex.
    certificate: str
    loss: float
    samples: int
    durable: ClassVar[bool] = False


class PeerForgotten(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A peer sent no beacon for so long that it no longer counts as a member."""

    peer: PeerId
    silent_s: float


# The tag stays "Refused": journals on disk carry that word.
class InputRefused(JournalEvent, frozen=True, kw_only=True, tag="Refused"):
    """Input from outside was refused. `reason` is one of `REFUSALS`."""

    reason: str
    # Empty if the sender was not authenticated.
    peer: str
    detail: str
    count: int = 1
    durable: ClassVar[bool] = False


class ReachReport(JournalEvent, frozen=True, kw_only=True, tag=True):
    """Whether others can call this node, and what it relays for others.

    `callable`, `nat` and `observed` are those of `protocol.network.reachability.Reachability`, and
    `text` says them in a sentence. `unreachable` are peers to which every path failed lately.
    """

    callable: bool | None
    nat: str
    observed: str
    text: str
    unreachable: tuple[str, ...] = ()
    relay_sessions: int = 0
    relayed_bytes: int = 0
    durable: ClassVar[bool] = False


class TrafficReport(JournalEvent, frozen=True, kw_only=True, tag=True):
    """Bytes sent and received since the start, and the open connections."""

    control_sent: int
    control_received: int
    bulk_sent: int
    bulk_received: int
    connections: int
    durable: ClassVar[bool] = False
