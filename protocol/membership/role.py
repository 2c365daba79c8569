"""What a peer is in a run: a newcomer, a member or a voter.

A **trusted** peer is a founder, is on the allowlist, or was invited by the owner; it is a member at
once. A **stranger** is a member while more than a third of the voters are for it and fewer are
against it. Everyone else is a newcomer, whose work counts and who reduces no slice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum

from msgspec import UNSET

from protocol.identity import PeerId
from protocol.membership.invited import Invited
from protocol.membership.record import Admitted, MembershipRecord
from protocol.run.manifest import Manifest


class Role(IntEnum):
    """The role of a peer in the membership record before a plan. A voter is a member, too."""

    NEWCOMER = 0
    MEMBER = 1
    VOTER = 2


def is_trusted(record: MembershipRecord, manifest: Manifest, peer: PeerId) -> bool:
    """Whether the manifest or the owner names a peer, and the owner has not revoked it."""
    if peer in record.revoked:
        return False
    if peer in manifest.founders or peer in record.invited:
        return True
    admission = manifest.admission
    return admission is not UNSET and peer in admission.allowed


def role_of(record: MembershipRecord, manifest: Manifest, peer: PeerId) -> Role:
    """The role of a peer that the record knows."""
    if peer in record.voters:
        return Role.VOTER
    if is_trusted(record, manifest, peer) or is_accepted(record, manifest, peer):
        return Role.MEMBER
    return Role.NEWCOMER


def is_accepted(record: MembershipRecord, manifest: Manifest, peer: PeerId) -> bool:
    """Whether the voters accept a stranger as a member.

    Where nobody can audit work (`trust.audit = "none"`), no stranger is accepted.
    """
    if peer in record.revoked or manifest.trust.audit == "none":
        return False
    favours = record.speaks_for(peer)
    return 3 * favours > len(record.voters) and record.speaks_against(peer) < favours


def roles_in(
    record: MembershipRecord,
    manifest: Manifest,
    peers: Sequence[PeerId],
    invited: Mapping[PeerId, Invited],
) -> tuple[Role, ...]:
    """The role of each member of a plan. `invited` has the valid invitations in its offers."""
    admitted = frozenset(peer for _, peer in admitted_by(record, manifest, invited))
    return tuple(
        Role.MEMBER
        if peer in admitted and peer not in record.voters
        else role_of(record, manifest, peer)
        for peer in peers
    )


def admitted_by(
    record: MembershipRecord, manifest: Manifest, invited: Mapping[PeerId, Invited]
) -> Iterable[tuple[Invited, PeerId]]:
    """The peers that a plan's invitations admit, in the order in which their uses count.

    A peer that is trusted already uses nothing. A revoked peer is not admitted again, and a revoked
    invitation admits nobody.
    """
    uses: dict[str, int] = {}
    for peer in sorted(invited):
        invitation = invited[peer]
        if {peer, invitation.name} & {*record.revoked} or is_trusted(record, manifest, peer):
            continue
        used = record.invitations.get(invitation.name, _UNUSED).peers
        taken = uses.get(invitation.name, len(used))
        if taken < invitation.uses:
            uses[invitation.name] = taken + 1
            yield invitation, peer


_UNUSED = Admitted(peers=(), voters=1)
