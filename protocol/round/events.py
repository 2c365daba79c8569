"""The events of the round machine: what can happen to a node in a round."""

from __future__ import annotations

import msgspec

from protocol.certificates.certificate import OpenCertificate, Tip
from protocol.contribution.offer import Offer
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.messages.base import Signed
from protocol.messages.offer import Ready
from protocol.messages.round import HoldReport, Inclusion, Vote, Withdrawal
from protocol.planning.plan import OpenPlan


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the machine's events.

    What came from a peer was verified before: signature, run, sizes.
    """


class DeadlinePassed(Event, frozen=True, kw_only=True):
    """The deadline passed.

    `training` are the others at our tip that still train, as their beacons say.
    """

    training: frozenset[PeerId] = frozenset()


class WakeUp(Event, frozen=True, kw_only=True):
    """The driver woke up for another reason; no phase has a row for it."""


class TrainingFinished(Event, frozen=True, kw_only=True):
    """Local training reached its number of steps."""


class OfferMade(Event, frozen=True, kw_only=True):
    """Our offer is durable.

    `ready` announces it for view 0; the machine puts in the view when it sends the message.
    """

    ready: Ready
    offer: Offer


class LivePeersChanged(Event, frozen=True, kw_only=True):
    """Who is alive, and of them whom this node would not plan with
    (`protocol/network/peer_health.py`).
    """

    live: frozenset[PeerId]
    avoided: frozenset[PeerId] = frozenset()


class PeerLost(Event, frozen=True, kw_only=True):
    """The connection to a peer broke."""

    peer: PeerId


class ReadyReceived(Event, frozen=True, kw_only=True):
    signed: Signed
    ready: Ready


class PlanReceived(Event, frozen=True, kw_only=True):
    signed: Signed
    plan: OpenPlan


class ContributionsReceived(Event, frozen=True, kw_only=True):
    """The contributors (member indices) of this plan whose part of our own slice is here, checked."""

    plan: Digest
    contributors: frozenset[int]


class HoldReportReceived(Event, frozen=True, kw_only=True):
    peer: PeerId
    report: HoldReport


class WithdrawalReceived(Event, frozen=True, kw_only=True):
    peer: PeerId
    withdrawal: Withdrawal


class InclusionReceived(Event, frozen=True, kw_only=True):
    signed: Signed
    inclusion: Inclusion


class ResultReceived(Event, frozen=True, kw_only=True):
    """The result of one slice under the cut with this digest is here, checked."""

    inclusion: Digest
    slice: int


class OutcomeComputed(Event, frozen=True, kw_only=True):
    """All results are here and the outer step is in the spare buffer."""

    vote: Vote


class VoteReceived(Event, frozen=True, kw_only=True):
    signed: Signed
    vote: Vote


class CertificateReceived(Event, frozen=True, kw_only=True):
    """A verified certificate that extends the tip, or leads to a tip to prefer."""

    certificate: OpenCertificate


class ForkFound(Event, frozen=True, kw_only=True):
    """Another branch has living members; neither its tip nor ours descends from the other."""

    other: Tip


class MergePrepared(Event, frozen=True, kw_only=True):
    """The average of our state and the other branch's is in the spare buffer; `state` is its
    digest.

    `ready` has nothing to offer.
    """

    other: Tip
    state: Digest
    ready: Ready


class CertificateAdopted(Event, frozen=True, kw_only=True):
    """The anchor of `tip` is in place and training began `age_s` after the others began."""

    tip: Tip
    age_s: float = 0.0


class StateBytesReceived(Event, frozen=True, kw_only=True):
    """Verified bytes of the state of this certificate came."""

    certificate: Digest


class StateReceived(Event, frozen=True, kw_only=True):
    """The state of a certificate is here, whole and checked.

    `tip` is where this node stood then, and `ahead` whether the certificate descends from it. The
    state of another branch is averaged with ours; to adopt it would drop what our branch certified.
    """

    certificate: OpenCertificate
    tip: Digest
    ahead: bool


class StateUnavailable(Event, frozen=True, kw_only=True):
    """Nobody gave the state of this certificate; `reason` says why."""

    certificate: Digest
    reason: str


class ViewNotPersisted(Event, frozen=True, kw_only=True):
    """What `PersistView` asked for could not be made durable; what was asked for after it was not
    done.
    """

    reason: str
