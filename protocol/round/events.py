"""The events of the round machine: what can happen to a node in a round.

The driver has verified what came from a peer: signature, run and sizes.
"""

from __future__ import annotations

import msgspec

from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.tip import Tip
from protocol.contribution.offer import Offer
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.messages.base import Signed
from protocol.messages.offer import Ready
from protocol.messages.round import HoldReport, Inclusion, Vote, Withdrawal
from protocol.planning.plan import OpenPlan


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the machine's events."""


class DeadlinePassed(Event, frozen=True, kw_only=True):
    """The phase's deadline passed."""

    # The other nodes at this tip whose beacons say that they still train.
    training: frozenset[PeerId] = frozenset()


class TrainingFinished(Event, frozen=True, kw_only=True):
    """Local training reached its number of steps."""


class OfferMade(Event, frozen=True, kw_only=True):
    """This node's offer is durable."""

    # Announces the offer for view 0; the machine sets the view when it sends the message.
    ready: Ready
    offer: Offer


class LivePeersChanged(Event, frozen=True, kw_only=True):
    """The set of live peers changed."""

    live: frozenset[PeerId]
    # Peers that this node would not plan with (`protocol/network/peer_health.py`).
    avoided: frozenset[PeerId] = frozenset()
    # Live peers to which no path leads from this node, so that no offer of theirs arrives.
    unreachable: frozenset[PeerId] = frozenset()


class PeerLost(Event, frozen=True, kw_only=True):
    """The connection to a peer broke."""

    peer: PeerId


class ReadyReceived(Event, frozen=True, kw_only=True):
    """An offer arrived."""

    signed: Signed
    ready: Ready


class PlanReceived(Event, frozen=True, kw_only=True):
    """A plan arrived."""

    signed: Signed
    plan: OpenPlan


class ContributionsReceived(Event, frozen=True, kw_only=True):
    """The contributors whose part of this node's slice arrived and was checked, by index."""

    plan: Digest
    contributors: frozenset[int]


class HoldReportReceived(Event, frozen=True, kw_only=True):
    """A reducer's hold report arrived."""

    peer: PeerId
    report: HoldReport


class WithdrawalReceived(Event, frozen=True, kw_only=True):
    """A member withdrew from a plan."""

    peer: PeerId
    withdrawal: Withdrawal


class InclusionReceived(Event, frozen=True, kw_only=True):
    """An inclusion arrived."""

    signed: Signed
    inclusion: Inclusion


class ResultReceived(Event, frozen=True, kw_only=True):
    """The result of one slice arrived under the inclusion with this digest, and was checked."""

    inclusion: Digest
    slice: int


class OutcomeComputed(Event, frozen=True, kw_only=True):
    """All results arrived, and the state after the outer step is in the spare buffer."""

    vote: Vote


class VoteReceived(Event, frozen=True, kw_only=True):
    """A vote arrived."""

    signed: Signed
    vote: Vote


class CertificateReceived(Event, frozen=True, kw_only=True):
    """A verified certificate arrived that extends the tip, or leads to a preferred tip."""

    certificate: OpenCertificate


class ForkFound(Event, frozen=True, kw_only=True):
    """Another branch has living members; neither its tip nor this one descends from the other."""

    other: Tip


class RecoveryFound(Event, frozen=True, kw_only=True):
    """The run's owner says that the run goes on from another certificate."""

    # The tip of the recovery.
    tip: Tip


class RecoveryFailed(Event, frozen=True, kw_only=True):
    """No state of the owner's recovery was found; `reason` says why."""

    reason: str


class MergePrepared(Event, frozen=True, kw_only=True):
    """The average of both branches' states is in the spare buffer."""

    other: Tip
    # The digest of the averaged state.
    state: Digest
    # A Ready without an offer.
    ready: Ready
    # The tip that absorbs the other one, under rules 4.
    preferred: Tip | None = None


class CertificateAdopted(Event, frozen=True, kw_only=True):
    """The anchor of `tip` is in place."""

    tip: Tip
    # Seconds since the other nodes began to train from it.
    age_s: float = 0.0
    # Whether a quorum signed one of the certificates that led here.
    full: bool = True
    # Whether this node follows by the loss of the certified model: it need not wait for the grace
    # until its next full certificate.
    patient: bool = False
    # The votes for the tip that this node's copy of its certificate has.
    votes: tuple[tuple[PeerId, bytes], ...] = ()


class LeaveReceived(Event, frozen=True, kw_only=True):
    """A voter's leave arrived."""

    signed: Signed


class VotersReturned(Event, frozen=True, kw_only=True):
    """This node heard no voter for a while and hears one again."""


class OwnerRevoked(Event, frozen=True, kw_only=True):
    """The owner's revocations that this node knows; each was verified."""

    revocations: tuple[Signed, ...]


class StateBytesReceived(Event, frozen=True, kw_only=True):
    """Verified bytes of this certificate's state arrived."""

    certificate: Digest


class StateReceived(Event, frozen=True, kw_only=True):
    """The state of a certificate arrived, whole and checked.

    A node averages the state of another branch with its own. Adopting it would drop what this
    node's branch certified.
    """

    certificate: OpenCertificate
    # This node's tip at that time.
    tip: Digest
    # Whether the certificate descends from `tip`.
    ahead: bool


class StateUnavailable(Event, frozen=True, kw_only=True):
    """No peer served the state of this certificate; `reason` says why."""

    certificate: Digest
    reason: str


class ViewNotPersisted(Event, frozen=True, kw_only=True):
    """A `PersistView` failed; the driver skipped the actions after it."""

    reason: str
