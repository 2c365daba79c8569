"""The actions of the round machine: what it asks its driver to do."""

from __future__ import annotations

import msgspec

from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.tip import Tip
from protocol.contribution.offer import Offer
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.journal import JournalEvent
from protocol.membership.record import MembershipRecord
from protocol.messages.base import Message, Signed
from protocol.messages.round import Inclusion
from protocol.planning.plan import OpenPlan
from protocol.run.manifest import Outer


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what the machine asks its driver to do."""


class MakeOffer(Action, frozen=True, kw_only=True):
    """Collect from the trainer, add to the ledger, encode under the next seq, make it durable.

    `OfferMade` follows.
    """


class ResumeTraining(Action, frozen=True, kw_only=True):
    """Train on from the local parameters; does nothing while the trainer works."""


class PersistView(Action, frozen=True, kw_only=True):
    """Make durable that this node acts in this view of the round after `parent`.

    The driver does this before the actions that follow: after a restart, the node is in a later
    view. On failure, `ViewNotPersisted` follows and the driver skips the other actions. The action
    costs nothing when the view is durable already.
    """

    parent: Digest
    view: int


class Send(Action, frozen=True, kw_only=True):
    """Sign and send a message; a message to this node itself returns as its event."""

    to: tuple[PeerId, ...]
    message: Message


class Forward(Action, frozen=True, kw_only=True):
    """Send a message that is signed already."""

    to: tuple[PeerId, ...]
    signed: Signed


class Scatter(Action, frozen=True, kw_only=True):
    """Send every reducer its slice of `offer` and receive theirs.

    `ContributionsReceived` follows as they arrive.
    """

    plan: OpenPlan
    # The offer that the plan names for this node.
    offer: Offer


class Reduce(Action, frozen=True, kw_only=True):
    """Exchange slices and results under this inclusion, sum this node's own, compute the outcome.

    `ResultReceived` follows for each slice, then `OutcomeComputed`.
    """

    plan: OpenPlan
    inclusion: Inclusion
    digest: Digest
    # The outer rules of this round.
    outer: Outer
    # The parent's membership record, and the seconds of the round that the plan ends; None in runs
    # of rules 2 and 3.
    record: MembershipRecord | None = None
    round_s: float = 0.0


class ServeInclusion(Action, frozen=True, kw_only=True):
    """Do for the others what this inclusion assigns to this node, and compute no outcome.

    This node voted under an earlier inclusion, and that vote stays.
    """

    plan: OpenPlan
    inclusion: Inclusion
    digest: Digest


class ForwardResults(Action, frozen=True, kw_only=True):
    """Send the results of absent reducers to members that may lack them.

    A result proves itself: its reducer signed it.
    """

    plan: Digest
    slices: tuple[int, ...]
    # Indices of members.
    to: tuple[int, ...]


class AbandonExchange(Action, frozen=True, kw_only=True):
    """Stop the exchange of the view that ended, and free its memory."""


class RequestCertificate(Action, frozen=True, kw_only=True):
    """Ask these members whether they hold a certificate after this tip."""

    peers: tuple[PeerId, ...]


class PublishCertificate(Action, frozen=True, kw_only=True):
    """Send a certificate that was assembled here to the members; `gossip` sends it to all others.

    The machine adopts the certificate in the same step: no event follows.
    """

    certificate: OpenCertificate
    to: tuple[PeerId, ...]
    gossip: bool


class AdoptCertificate(Action, frozen=True, kw_only=True):
    """Make the certified state the anchor; `CertificateAdopted` follows."""

    certificate: OpenCertificate
    # Whether the state was downloaded; else it is in the spare buffer.
    downloaded: bool = False


class AuditReducers(Action, frozen=True, kw_only=True):
    """Audit a certificate's reducers with the results received, before their memory is freed."""

    certificate: OpenCertificate
    # Whether this node computed another state from the same inclusion.
    disputed: bool


class FetchState(Action, frozen=True, kw_only=True):
    """Download the state of this certificate in the background.

    `StateBytesReceived` follows while it arrives, then `StateReceived` or `StateUnavailable`. The
    action costs nothing while that download is under way.
    """

    certificate: OpenCertificate


class GiveUpState(Action, frozen=True, kw_only=True):
    """Do without the state of this certificate for a while: it does not arrive."""

    certificate: Digest
    # Whether it is another branch's state.
    merging: bool = False
    # For how long it kept this node out of rounds, in seconds.
    missed_s: float = 0.0


class FetchBranch(Action, frozen=True, kw_only=True):
    """Download the other branch's state.

    `StateBytesReceived` follows while it arrives, then `StateReceived` or `StateUnavailable`.
    """

    other: Tip


class Recover(Action, frozen=True, kw_only=True):
    """Take the state of the owner's recovery from the disk or from members.

    `CertificateAdopted` or `RecoveryFailed` follows.
    """

    tip: Tip


class AverageBranches(Action, frozen=True, kw_only=True):
    """Average the other branch's state with this node's into the spare buffer.

    `MergePrepared` follows.
    """

    other: Tip


class Refuse(Action, frozen=True, kw_only=True):
    """Count what a peer sent as refused."""

    peer: PeerId
    reason: str  # One of `protocol.journal.REFUSALS`.
    detail: str


class RecordEvent(Action, frozen=True, kw_only=True):
    """Write an event to the journal."""

    event: JournalEvent
