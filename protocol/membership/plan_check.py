"""Whether what a plan says of votes, leaves and revocations is true, by its parent's record."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, short
from protocol.membership.record import MembershipRecord
from protocol.messages.base import Signed
from protocol.messages.envelope import open_as, signature_is_valid
from protocol.messages.membership import MAX_NOTICES, Leave, Revocation
from protocol.messages.round import TrustPlan
from protocol.run.manifest import Manifest


def check_claims(
    plan: TrustPlan,
    members: Collection[PeerId],
    records: Sequence[MembershipRecord],
    outcomes: Sequence[bytes],
    run: Digest,
    manifest: Manifest,
) -> None:
    """Check the votes, leaves and revocations that a plan lists.

    Args:
        plan: the plan; its signature was checked.
        members: the plan's members.
        records: the record of each parent, the preferred one first.
        outcomes: what the votes for each parent sign; empty bytes for genesis.
        run: the run's id.
        manifest: the run's manifest.

    Raises:
        PeerFault: "bad_plan".
    """
    votes = plan.parent_votes
    voters = {voter for record in records for voter in record.voters}
    if list(votes) != sorted(set(votes)) or any(peer not in voters for peer, _ in votes):
        raise PeerFault("bad_plan", "a plan that lists a vote twice, or one of no voter")
    if len(votes) > len(records) * len(voters):
        raise PeerFault("bad_plan", "a plan that lists more votes than its parents have voters")
    for peer, signature in votes:
        if not any(
            outcome and signature_is_valid(run, outcome, peer, signature) for outcome in outcomes
        ):
            raise PeerFault("bad_plan", f"the vote of {short(peer)} for the parent is not its own")
    leavers = [signed.peer for signed in plan.leaves]
    if leavers != sorted(set(leavers)) or set(leavers) & set(members):
        raise PeerFault("bad_plan", "a plan that lists a leave twice, or one of a member")
    for signed in plan.leaves:
        if why := leave_fault(signed, records[0], run):
            raise PeerFault("bad_plan", why)
    subjects = [revoked_by(signed, run, manifest) for signed in plan.revocations]
    if subjects != sorted(set(subjects)) or set(subjects) & set(records[0].revoked):
        raise PeerFault("bad_plan", "a plan that lists a revocation twice")


def leave_fault(signed: Signed, record: MembershipRecord, run: Digest) -> str:
    """Why a leave does not count after the record's certificate; empty where it does.

    Raises:
        PeerFault: for what is no leave.
    """
    leave = open_as(Leave, signed, run)
    if signed.peer not in record.voters:
        return f"a leave of {short(signed.peer)}, which has no vote"
    if leave.serial <= record.leaves.get(signed.peer, -1):
        return f"an old leave of {short(signed.peer)}"
    if leave.tip not in record.tips:
        return f"a leave of {short(signed.peer)} from long ago or from another branch"
    return ""


def revoked_by(signed: Signed, run: Digest, manifest: Manifest) -> PeerId:
    """The peer that a revocation names.

    Raises:
        PeerFault: for one that the run's owner did not sign.
    """
    revocation = open_as(Revocation, signed, run)
    if not manifest.owner or signed.peer != manifest.owner:
        raise PeerFault("bad_plan", f"{short(signed.peer)} is not the owner and revokes nobody")
    return revocation.subject


def revocations_to_list(
    known: Sequence[Signed], record: MembershipRecord, run: Digest, manifest: Manifest
) -> tuple[Signed, ...]:
    """The verified revocations that a plan after `record` lists, in the order of their subjects."""
    by_subject = {revoked_by(signed, run, manifest): signed for signed in known}
    new = sorted(subject for subject in by_subject if subject not in record.revoked)
    return tuple(by_subject[subject] for subject in new[:MAX_NOTICES])
