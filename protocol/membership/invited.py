"""What a plan needs to know of an invitation."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.identity import PeerId
from protocol.membership.invitation import open_proof
from protocol.messages.offer import Ready, TrustReady
from protocol.run.manifest import Manifest


class Invited(msgspec.Struct, frozen=True, kw_only=True):
    """What a valid invitation says; its uses are counted in the membership record."""

    # Names the invitation.
    name: str
    # The most peers that it admits.
    uses: int = 1
    # The most votes that these peers hold together.
    voters: int = 1


def invitations_in(
    peers: Sequence[PeerId], offers: Sequence[Ready], run: Digest, manifest: Manifest
) -> dict[PeerId, Invited]:
    """Return what the valid invitations in the offers of `peers` say, by peer."""
    return {
        peer: invitation
        for peer, offer in zip(peers, offers, strict=True)
        if (invitation := invited_by(offer, peer, run, manifest)) is not None
    }


def invited_by(offer: Ready, peer: PeerId, run: Digest, manifest: Manifest) -> Invited | None:
    """Return what the invitation in an offer says; None where the offer has no valid one."""
    if not isinstance(offer, TrustReady) or not offer.invitation:
        return None
    try:
        grant = open_proof(offer.invitation, peer, run, manifest.owner)
    except PeerFault:
        return None
    return Invited(name=grant.name, uses=grant.uses, voters=grant.voters)
