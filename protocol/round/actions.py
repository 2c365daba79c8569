"""The actions of the round machine: what it asks its driver to do."""

from __future__ import annotations

import msgspec

from protocol.certificates.certificate import OpenCertificate, Tip
from protocol.contribution.offer import Offer
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.journal import JournalEvent
from protocol.messages.base import Message, Signed
from protocol.messages.round import Inclusion
from protocol.planning.plan import OpenPlan


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what the machine asks its driver to do."""


class MakeOffer(Action, frozen=True, kw_only=True):
    """Collect from the trainer, add to the ledger, encode under the next seq, make it durable; then
    `OfferMade`.
    """


class ResumeTraining(Action, frozen=True, kw_only=True):
    """Go on training from the local parameters; nothing where the trainer is at work."""


class PersistView(Action, frozen=True, kw_only=True):
    """Make durable that this view of the round after `parent` is taken, before doing what is asked
    for next: after a restart the node is in a later one.

    Where that fails, `ViewNotPersisted` and nothing else. Costs nothing when it is durable already.
    """

    parent: Digest
    view: int


class Send(Action, frozen=True, kw_only=True):
    """Sign and send. What is sent to ourselves comes back as the event it would have been."""

    to: tuple[PeerId, ...]
    message: Message


class Forward(Action, frozen=True, kw_only=True):
    """Send what is signed already."""

    to: tuple[PeerId, ...]
    signed: Signed


class Scatter(Action, frozen=True, kw_only=True):
    """Send every reducer its slice of `offer` and receive theirs.

    `ContributionsReceived` follows as they arrive. `offer` is the one that the plan names for this
    node.
    """

    plan: OpenPlan
    offer: Offer


class Reduce(Action, frozen=True, kw_only=True):
    """Move slices to their owners under this cut, sum our own, send and take results (`ResultReceived`),
    compute (`OutcomeComputed`).
    """

    plan: OpenPlan
    inclusion: Inclusion
    digest: Digest


class ServeInclusion(Action, frozen=True, kw_only=True):
    """Do for this cut what others need of us, and compute nothing: our vote under an earlier one
    stands.
    """

    plan: OpenPlan
    inclusion: Inclusion
    digest: Digest


class ForwardResults(Action, frozen=True, kw_only=True):
    """Send these members the results of these slices of a plan, which others made who are absent
    now.

    What they signed proves itself.
    """

    plan: Digest
    slices: tuple[int, ...]
    to: tuple[int, ...]  # member indices


class AbandonExchange(Action, frozen=True, kw_only=True):
    """Stop the exchange of the view that ended; what it held is free."""


class RequestCertificate(Action, frozen=True, kw_only=True):
    """Ask these members whether they hold a certificate after our tip."""

    peers: tuple[PeerId, ...]


class PublishCertificate(Action, frozen=True, kw_only=True):
    """Send a certificate that was assembled here to the members; `gossip` sends it to all others.

    The machine adopts it in the same step; nothing comes back from this action.
    """

    certificate: OpenCertificate
    to: tuple[PeerId, ...]
    gossip: bool


class AdoptCertificate(Action, frozen=True, kw_only=True):
    """What we computed, or `downloaded`, is what was certified: it becomes the anchor.

    Then `CertificateAdopted`.
    """

    certificate: OpenCertificate
    downloaded: bool = False


class AuditReducers(Action, frozen=True, kw_only=True):
    """Look after the reducers of a certificate with what came of them, before it is let go.

    `disputed`: another state was computed here from it.
    """

    certificate: OpenCertificate
    disputed: bool


class FetchState(Action, frozen=True, kw_only=True):
    """Have the state of this certificate downloaded beside all else: `StateBytesReceived` while it comes,
    then `StateReceived` or `StateUnavailable`.

    Costs nothing where that is under way.
    """

    certificate: OpenCertificate


class GiveUpState(Action, frozen=True, kw_only=True):
    """The state of this certificate does not come: do without it for a while.

    `merging`: it is another branch's. `held_s`: for how long it kept this node out of rounds.
    """

    certificate: Digest
    merging: bool = False
    held_s: float = 0.0


class FetchBranch(Action, frozen=True, kw_only=True):
    """Have the other branch's state downloaded: `StateBytesReceived` while it comes, then `StateReceived` or
    `StateUnavailable`.
    """

    other: Tip


class AverageBranches(Action, frozen=True, kw_only=True):
    """The other branch's state is here: average it with ours into the spare buffer; then
    `MergePrepared`.
    """

    other: Tip


class Refuse(Action, frozen=True, kw_only=True):
    peer: PeerId
    reason: str
    detail: str


class RecordEvent(Action, frozen=True, kw_only=True):
    """For the journal."""

    event: JournalEvent
