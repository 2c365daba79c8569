"""What a certificate tells the membership record: facts that its hash covers, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from protocol.certificates.certificate import OpenCertificate
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.membership.invited import Invited, invited_by
from protocol.messages.envelope import open_as
from protocol.messages.membership import Leave, Revocation, Statement
from protocol.messages.offer import TrustReady
from protocol.messages.round import PacedPlan, TrustPlan, TrustVote
from protocol.planning.round_length import round_length
from protocol.run.manifest import Manifest


class OfferFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What one member's offer says of members."""

    statements: tuple[Statement, ...] = ()
    # What its valid invitation says.
    invited: Invited | None = None


class RecordFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What one certificate says of members."""

    # The certificate.
    hash: Digest
    number: int
    # Seconds of the round that the certificate ended.
    round_s: float
    # Every member of the plan.
    offers: Mapping[PeerId, OfferFacts]
    # The weight of each contributor.
    weights: Mapping[PeerId, int]
    step_norm: float
    # By sender: the serial of its leave.
    leaves: Mapping[PeerId, int] = {}
    revoked: frozenset[PeerId] = frozenset()


def facts_of(
    certificate: OpenCertificate, weights: Mapping[PeerId, int], manifest: Manifest, run: Digest
) -> RecordFacts:
    """Return the facts of a certificate of rules 4.

    Args:
        certificate: its signatures were checked, those of leaves and revocations as well.
        weights: the weight of each contributor in the mean.
        manifest: the run's manifest.
        run: the run's id.
    """
    plan, outcome = certificate.plan.plan, certificate.outcome
    assert isinstance(plan, TrustPlan), "only rules 4 have a membership record"
    assert isinstance(outcome, TrustVote), "only rules 4 have a membership record"
    return RecordFacts(
        hash=certificate.hash,
        number=outcome.number,
        round_s=recorded_s(plan, manifest),
        offers={
            peer: OfferFacts(
                statements=offer.statements, invited=invited_by(offer, peer, run, manifest)
            )
            for peer, offer in zip(certificate.plan.members, certificate.plan.offers, strict=True)
            if isinstance(offer, TrustReady)
        },
        weights=weights,
        step_norm=outcome.step_norm,
        leaves={
            signed.peer: open_as(Leave, signed, run, trusted=True).serial for signed in plan.leaves
        },
        revoked=frozenset(
            open_as(Revocation, signed, run, trusted=True).subject for signed in plan.revocations
        ),
    )


def recorded_s(plan: PacedPlan, manifest: Manifest) -> float:
    """Seconds of the round that a plan ends, as its parent's plan left them."""
    return round_length(plan.round_s_before, manifest.round)
