"""Who may take part in a run of rules 4, by the membership record of a round's parent.

    invite       founders, and peers that the owner invited
    open         everybody
    registered   peers that name a wallet (`protocol/run/admission.py`)
    allowlist    founders, and the peers that the manifest lists or the owner invited

The owner and peers that the owner revoked are the same for all policies: a revoked peer takes part
in none. The rules depend on no clock, so everyone applies them alike to offers, plans and
certificates. Whether an invitation has expired is each leader's own view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from protocol.errors import PeerFault
from protocol.identity import PeerId, short
from protocol.membership.invited import Invited
from protocol.membership.record import MembershipRecord
from protocol.membership.role import admitted_by, is_trusted
from protocol.run.manifest import Manifest

HOW_TO_JOIN = "it joins with  hypergpud start --join INVITATION,  a line of the run's owner"


def admission_fault(
    record: MembershipRecord, manifest: Manifest, peer: PeerId, invitation: Invited | None
) -> str:
    """Return why a peer may not take part in the round after `record`; empty where it may.

    Args:
        record: the membership record of the round's parent.
        manifest: the run's manifest.
        peer: the peer.
        invitation: the valid invitation in its offer.
    """
    if peer in record.revoked:
        return f"the run's owner revoked {short(peer)}"
    if not _needs_invitation(record, manifest, peer):
        return ""
    if invitation is None:
        if manifest.admits == "allowlist":
            return f"{short(peer)} is neither on this run's allowlist nor invited"
        return f"{short(peer)} has no invitation to this run; {HOW_TO_JOIN}"
    if invitation.name in record.revoked:
        return f"the run's owner revoked the invitation of {short(peer)}"
    if any(admitted == peer for _, admitted in admitted_by(record, manifest, {peer: invitation})):
        return ""
    uses = "its only use" if invitation.uses == 1 else f"all its {invitation.uses} uses"
    return (
        f"others had {uses} of the invitation of {short(peer)}; the owner makes another one with "
        "hypergpud invite"
    )


def admitted_together(
    record: MembershipRecord,
    manifest: Manifest,
    peers: Sequence[PeerId],
    invited: Mapping[PeerId, Invited],
) -> tuple[PeerId, ...]:
    """Return the peers that one plan may list, in the order of `peers`.

    A leader leaves the others out: two friends may use one invitation in the same round.

    Args:
        record: the membership record of the plan's parent.
        manifest: the run's manifest.
        peers: peers that offer.
        invited: the valid invitations in their offers.
    """
    together = {peer for _, peer in admitted_by(record, manifest, invited)}
    return tuple(
        peer
        for peer in peers
        if not admission_fault(record, manifest, peer, invited.get(peer))
        and (peer in together or not _needs_invitation(record, manifest, peer))
    )


def check_members(
    record: MembershipRecord,
    manifest: Manifest,
    peers: Sequence[PeerId],
    invited: Mapping[PeerId, Invited],
) -> None:
    """Check that every member of a plan may take part; see `admitted_together`.

    Raises:
        PeerFault: "not_admitted".
    """
    admitted = frozenset(admitted_together(record, manifest, peers, invited))
    for peer in peers:
        if peer not in admitted:
            why = admission_fault(record, manifest, peer, invited.get(peer))
            why = why or f"{short(peer)} exceeds the uses of its invitation"
            raise PeerFault("not_admitted", why)


def _needs_invitation(record: MembershipRecord, manifest: Manifest, peer: PeerId) -> bool:
    return (
        manifest.admits in ("invite", "allowlist")
        and peer not in record.voters
        and not is_trusted(record, manifest, peer)
    )
