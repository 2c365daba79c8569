"""The tip after a certificate, and what is checked of the certificate.

A tip extends by one certificate. Two tips merge by a certificate with two parents.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from protocol.averaging.plan_sum import contributor_weights
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.leader_order import leader_of
from protocol.certificates.tip import NEWCOMER_LANES, Tip, prefer
from protocol.contribution.lane_reserve import next_reserve
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, short
from protocol.membership.certificate_check import check_by_record, is_full_certificate
from protocol.membership.facts import facts_of
from protocol.membership.next_record import merged_record, next_record
from protocol.membership.record import MembershipRecord
from protocol.messages.envelope import payload_of
from protocol.messages.round import round_s_of
from protocol.planning.group_size_history import GroupSizeHistory
from protocol.planning.paced_plan import false_memory
from protocol.planning.plan import OpenPlan
from protocol.rules.registry import rule_set
from protocol.rules.versions import RULES_4
from protocol.run.manifest import Manifest


class TrustRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a check of certificates of rules 4 needs beside the tips."""

    run: Digest
    manifest: Manifest


def trust_rules(run: Digest, manifest: Manifest) -> TrustRules | None:
    """Return them for a run of rules 4; None for earlier rules."""
    return TrustRules(run=run, manifest=manifest) if manifest.rules >= RULES_4 else None


class MergeSides(msgspec.Struct, frozen=True, kw_only=True):
    """What a merge of rules 4 takes from the branches (`protocol/membership/standing.py`)."""

    # The last certificate of both branches.
    ancestor: Tip
    # The tip of the branch that absorbs the other one.
    preferred: Tip
    # The voters that stand on the other branch, if they are fewer; empty between equals.
    stood: tuple[PeerId, ...] = ()


def extend(
    tip: Tip,
    certificate: OpenCertificate,
    *,
    trusted: bool = False,
    trust: TrustRules | None = None,
) -> Tip:
    """Extend the lineage by one certificate.

    Args:
        tip: the end of the lineage.
        certificate: the certificate after it.
        trusted: check parent and number alone, for what this node verified before, perhaps with
            another release.
        trust: for runs of rules 4, whose certificates the tip's record judges.

    Raises:
        PeerFault: "bad_certificate" when the certificate does not follow from `tip`; "bad_plan"
            when its plan lists false votes or leaves.
    """
    outcome, plan = certificate.outcome, certificate.plan
    if outcome.parents != (tip.hash,) or outcome.number != tip.number + 1:
        raise PeerFault(
            "bad_certificate",
            f"certificate {outcome.number} does not follow certificate {tip.number}",
        )
    if not trusted:
        if trust is None:
            _check_leader(plan, tip.members)
        else:
            _check_by_records(certificate, (tip,), trust)
        _check_memory(plan, tip.layout, tip.round_s)
    last_seq = dict(tip.last_seq)
    for peer, seq in certificate.listed.items():
        if seq <= last_seq.get(peer, 0) and not trusted:
            raise PeerFault("bad_certificate", f"seq {seq} of {short(peer)} was certified before")
        last_seq[peer] = max(seq, last_seq.get(peer, 0))
    # This counts members whose work was not included, too: they train on and must not meet their
    # own samples again.
    longest = max(offer.trajectory.drawn for offer in plan.offers)
    if not plan.overlap:
        longest = max(longest, *(plan.offers[i].samples for i in certificate.contributors))
    return Tip(
        hash=certificate.hash,
        number=outcome.number,
        members=_present(certificate),
        last_seq=last_seq,
        samples=tip.samples + certificate.samples,
        state=outcome.state,
        lane_base=tip.behind_reserve + longest * (len(tip.members) + NEWCOMER_LANES),
        reserve=next_reserve(tip.reserve, plan.offers) if plan.overlap else 0,
        layout=plan.plan.after,
        round_s=round_s_of(plan.plan),
        record=_record_after(tip, certificate, trust),
        outcome=payload_of(outcome) if trust is not None else b"",
    )


def merge(
    first: Tip,
    second: Tip,
    weights: tuple[int, int],
    certificate: OpenCertificate,
    *,
    trusted: bool = False,
    trust: TrustRules | None = None,
    ancestor: Tip | None = None,
    sides: MergeSides | None = None,
) -> Tip:
    """The tip where two branches merge.

    Args:
        first: the tip of one branch.
        second: the tip of the other.
        weights: the samples certified on each branch since they parted.
        certificate: the certificate of the merge.
        trusted: as for `extend`.
        trust: as for `extend`.
        ancestor: the last certificate of both branches, for runs of rules 4; then the branch with
            more samples absorbs the other.
        sides: which of them absorbs the other; in place of `ancestor`.

    Raises:
        PeerFault: "bad_certificate" when the certificate does not merge these tips.
    """
    outcome = certificate.outcome
    if (
        outcome.parents != (first.hash, second.hash)
        or outcome.number != max(first.number, second.number) + 1
    ):
        raise PeerFault(
            "bad_certificate",
            f"certificate {outcome.number} does not merge "
            f"certificates {first.number} and {second.number}",
        )
    if sides is None and ancestor is not None:
        sides = MergeSides(ancestor=ancestor, preferred=prefer(first, second))
    preferred = sides.preferred if sides is not None else prefer(first, second)
    other = second if preferred is first else first
    if not trusted:
        if trust is None:
            _check_leader(certificate.plan, {*first.members, *second.members})
        else:
            _check_by_records(certificate, (preferred, other), trust)
        _check_memory(certificate.plan, None, preferred.round_s)
    record: MembershipRecord | None = None
    if trust is not None:
        assert sides is not None, "two branches of one run have a common certificate"
        if not trusted and not is_full_certificate(
            certificate, _record_of(preferred), trust.manifest
        ):
            raise PeerFault(
                "bad_certificate",
                f"merge {outcome.number} has no quorum of the branch with more standing",
            )
        record = merged_record(
            _record_of(preferred),
            _record_of(other),
            _record_of(sides.ancestor),
            facts_of(certificate, {}, trust.manifest, trust.run),
            trust.manifest,
            sides.stood,
        )
    peers = {*first.last_seq, *second.last_seq}
    return Tip(
        hash=certificate.hash,
        number=outcome.number,
        members=_present(certificate),
        last_seq={
            peer: max(first.last_seq.get(peer, 0), second.last_seq.get(peer, 0)) for peer in peers
        },
        samples=first.samples + weights[1],
        state=outcome.state,
        lane_base=max(first.behind_reserve, second.behind_reserve),
        reserve=max(first.reserve, second.reserve),
        layout=certificate.plan.plan.after,
        round_s=round_s_of(certificate.plan.plan),
        record=record,
        outcome=payload_of(outcome) if trust is not None else b"",
    )


def weights_of(certificate: OpenCertificate) -> dict[PeerId, int]:
    """The weight of each contributor in a certificate's mean."""
    plan = certificate.plan
    weights = contributor_weights(plan, certificate.contributors)
    return {
        plan.members[i]: weight for i, weight in zip(certificate.contributors, weights, strict=True)
    }


def _check_leader(plan: OpenPlan, members: Iterable[PeerId]) -> None:
    """Check that the plan's leader leads its view."""
    order = rule_set(plan.rules).leader_order(plan.plan.parent, members)
    if plan.plan.view < len(order) and plan.leader != leader_of(order, plan.plan.view):
        raise PeerFault(
            "bad_certificate",
            f"{short(plan.leader)} does not lead view {plan.plan.view} of round {plan.plan.number}",
        )


def _check_memory(plan: OpenPlan, left: GroupSizeHistory | None, round_s: float | None) -> None:
    """Check that a plan remembers what its parent's plan left.

    A false memory would lead to other groups, or to a round of another length.
    """
    if (why := false_memory(plan.plan, left, round_s)) is not None:
        raise PeerFault("bad_certificate", f"the plan of round {plan.plan.number} {why}")


def _check_by_records(
    certificate: OpenCertificate, parents: tuple[Tip, ...], trust: TrustRules
) -> None:
    """Check a certificate of rules 4. The preferred parent comes first."""
    check_by_record(
        certificate,
        [_record_of(parent) for parent in parents],
        [parent.outcome for parent in parents],
        trust.run,
        trust.manifest,
    )


def _present(certificate: OpenCertificate) -> tuple[PeerId, ...]:
    """The members that the inclusion names as present."""
    return tuple(certificate.plan.members[i] for i in certificate.inclusion.present)


def _record_of(tip: Tip) -> MembershipRecord:
    assert tip.record is not None, "every tip of rules 4 has a record"
    return tip.record


def _record_after(
    tip: Tip, certificate: OpenCertificate, trust: TrustRules | None
) -> MembershipRecord | None:
    if trust is None:
        return None
    facts = facts_of(certificate, weights_of(certificate), trust.manifest, trust.run)
    return next_record(_record_of(tip), facts, trust.manifest)
