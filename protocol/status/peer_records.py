"""The records of other peers in a status: what is known of each, and who votes.

As in `records.py`, the field names are a contract, and the imports must load quickly.
"""

from __future__ import annotations

import msgspec

# The same as protocol.identity.PeerId.
PeerId = str

KEPT_PEERS = 4096
"""Peers in a status. Beacons are free, so a stranger could sign them with any number of keys."""

KEPT_LOST = 128
"""Lost peers in a status: two full plans."""

LOST_KEPT_S = 3600.0
"""How long a lost peer is shown: long enough for a person who looks in once an hour."""


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
    last one was signed by more, and `last_full` its number. `audits` are this node's own, the
    newest first.
    """

    voters: tuple[PeerId, ...] = ()
    newcomers: tuple[NewcomerSummary, ...] = ()
    clipped: int = 0
    contributors: int = 0
    is_degraded: bool = False
    last_full_at: float | None = None
    last_full: int | None = None
    audits: tuple[AuditSummary, ...] = ()
