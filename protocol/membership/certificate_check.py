"""Whether a certificate follows from its parents' membership records.

Signatures, hashes and shape were checked before (`protocol/certificates/certificate.py`). Keys
alone cannot make a certificate: the record says whose votes count and who may lead.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.leader_order import leader_of, voter_order
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.identity import short
from protocol.membership.admission import check_members
from protocol.membership.facts import recorded_s
from protocol.membership.invited import invitations_in
from protocol.membership.plan_check import check_claims
from protocol.membership.quorum import Quorum, quorum_of
from protocol.membership.record import MembershipRecord
from protocol.membership.role import roles_in
from protocol.membership.terms import terms_by_record
from protocol.messages.round import TrustPlan, TrustVote
from protocol.messages.sum_terms import SumTerms
from protocol.run.manifest import Manifest


def check_by_record(
    certificate: OpenCertificate,
    records: Sequence[MembershipRecord],
    outcomes: Sequence[bytes],
    run: Digest,
    manifest: Manifest,
) -> None:
    """Check a certificate by the records of its parents, the preferred one first.

    Args:
        certificate: the certificate.
        records: its parents' records.
        outcomes: what the votes for each parent sign; empty bytes for genesis.
        run: the run's id.
        manifest: the run's manifest.

    Raises:
        PeerFault: "bad_certificate"; "not_admitted" where a member may not take part.
    """
    plan, outcome, number = certificate.plan, certificate.outcome, certificate.outcome.number
    record = records[0]
    assert isinstance(plan.plan, TrustPlan), "the run's rules were checked"
    assert isinstance(outcome, TrustVote), "the run's rules were checked"
    leader = leader_of(voter_order(run, record.counted, number), plan.plan.view)
    if plan.leader != leader:
        raise PeerFault(
            "bad_certificate",
            f"{short(plan.leader)} does not lead view {plan.plan.view} of round {number}",
        )
    if not quorum_in(certificate, record, manifest).is_degraded(certificate.voters):
        raise PeerFault(
            "bad_certificate", f"no voter of the run signed certificate {number}, or too few peers"
        )
    if outcome.record != record.digest:
        raise PeerFault(
            "bad_certificate", f"certificate {number} names other members than its parent has"
        )
    check_claims(plan.plan, plan.members, records, outcomes, run, manifest)
    invited = invitations_in(plan.members, plan.offers, run, manifest)
    check_members(record, manifest, plan.members, invited)
    if plan.plan.terms != _terms(certificate, record, run, manifest):
        raise PeerFault(
            "bad_certificate", f"certificate {number} weighs work otherwise than its parent says"
        )


def _terms(
    certificate: OpenCertificate, record: MembershipRecord, run: Digest, manifest: Manifest
) -> SumTerms:
    plan = certificate.plan
    assert isinstance(plan.plan, TrustPlan), "only rules 4 have a membership record"
    invited = invitations_in(plan.members, plan.offers, run, manifest)
    return terms_by_record(
        record,
        plan.members,
        [offer.samples for offer in plan.offers],
        roles_in(record, manifest, plan.members, invited),
        recorded_s(plan.plan, manifest),
        manifest,
    )


def quorum_in(certificate: OpenCertificate, record: MembershipRecord, manifest: Manifest) -> Quorum:
    """The votes that count for a certificate, by its (preferred) parent's record."""
    plan = certificate.plan
    assert isinstance(plan.plan, TrustPlan), "only rules 4 have a membership record"
    return quorum_of(record, plan.members, plan.plan.away, manifest.group.min_peers)


def is_full_certificate(
    certificate: OpenCertificate, record: MembershipRecord, manifest: Manifest
) -> bool:
    """Whether this copy of a certificate has the votes of more than half of the voters."""
    return quorum_in(certificate, record, manifest).is_full(certificate.voters)
