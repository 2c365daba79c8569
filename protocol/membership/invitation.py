"""Invitations: a line of text with which the run's owner admits peers (rules 4).

    grant   what the owner signed: a one-time public key, uses, votes, expiry, a recent certificate
    token   the grant, the secret half of its key, the run id and addresses; people pass it on
    proof   the grant, and a peer's id signed with the secret half; the peer's offers carry it

A peer that sees a proof on the wire cannot use the grant: it does not have the secret half. Uses
are counted in the membership record. A proof stays valid whatever a clock says, so that all members
judge a certificate alike; a leader leaves out new peers whose grant expired.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, Signer, peer_id_of, short, verify
from protocol.messages.base import UNREADABLE, Hash, Natural, Signature
from protocol.messages.membership import MAX_INVITATION_BYTES, MAX_VOTERS

MAX_USES = 1024
"""More friends than one invitation has; a run that admits anybody has `policy = "open"`."""

CLOCK_SKEW_S = 600.0
"""How long after the expiry a leader still admits a peer: clocks of home machines differ."""

_GRANT_DOMAIN = b"hypergpu/invitation/1\0"
_PROOF_DOMAIN = b"hypergpu/invitation-proof/1\0"

Key = Annotated[bytes, Meta(min_length=32, max_length=32)]


class Grant(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """What an invitation grants. The owner signs its bytes together with the run id."""

    # The public half of the invitation's one-time key.
    key: Key
    # Counts the owner's invitations, for people.
    serial: Natural
    # The most peers that it admits.
    uses: Annotated[int, Meta(ge=1, le=MAX_USES)] = 1
    # The most votes that these peers hold together.
    voters: Annotated[int, Meta(ge=1, le=MAX_VOTERS)] = 1
    # Unix time.
    expires_s: Natural
    # A recent certificate, or the run's genesis. A peer that joins follows no history without it.
    certificate: Hash

    @property
    def name(self) -> PeerId:
        """Names the invitation in the membership record and in a revocation."""
        return peer_id_of(self.key)


class SignedGrant(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """A grant as it travels: its bytes and the owner's signature."""

    body: Annotated[bytes, Meta(max_length=MAX_INVITATION_BYTES)]
    signature: Signature


class InvitationProof(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """A grant, and the id of the peer that uses it, signed with the grant's one-time key."""

    grant: SignedGrant
    signature: Signature


class OwnInvitation(msgspec.Struct, frozen=True, kw_only=True):
    """What an invited node brings to a run."""

    # Empty for a founder, and in a run that needs none.
    proof: bytes = b""
    # A certificate that the run's history must contain; None once this node follows such a history.
    required: Digest | None = None


_encoder = msgspec.msgpack.Encoder()
_grants = msgspec.msgpack.Decoder(Grant)
_proofs = msgspec.msgpack.Decoder(InvitationProof)


def sign_grant(owner: Signer, run: Digest, grant: Grant) -> SignedGrant:
    """Sign a grant for one run."""
    body = _encoder.encode(grant)
    return SignedGrant(body=body, signature=owner.sign(_GRANT_DOMAIN + run + body))


def open_grant(signed: SignedGrant, run: Digest, owner: PeerId) -> Grant:
    """Verify and decode a grant. Raises `PeerFault("not_admitted")`."""
    if not owner or not verify(owner, signed.signature, _GRANT_DOMAIN + run + signed.body):
        raise PeerFault("not_admitted", "an invitation that this run's owner did not sign")
    return read_grant(signed)


def read_grant(signed: SignedGrant) -> Grant:
    """Decode a grant, unchecked. Raises `PeerFault("not_admitted")`."""
    try:
        return _grants.decode(signed.body)
    except UNREADABLE as error:
        raise PeerFault("not_admitted", f"an unreadable invitation: {error}") from None


def make_proof(grant: SignedGrant, secret: bytes, run: Digest, peer: PeerId) -> bytes:
    """Return the proof with which `peer` uses a grant.

    Args:
        grant: the owner's grant.
        secret: the seed of the grant's one-time key, 32 bytes.
        run: the run's id.
        peer: the peer that joins.
    """
    signature = Signer(secret).sign(_bound(run, peer))
    return _encoder.encode(InvitationProof(grant=grant, signature=signature))


def open_proof(proof: bytes, peer: PeerId, run: Digest, owner: PeerId) -> Grant:
    """Return what a peer's proof grants it.

    A pure function: the result depends neither on a clock nor on other certificates.

    Raises:
        PeerFault: "not_admitted" for a proof of another peer, run or owner.
    """
    try:
        opened = _proofs.decode(proof)
    except UNREADABLE as error:
        raise PeerFault("not_admitted", f"an unreadable invitation: {error}") from None
    grant = open_grant(opened.grant, run, owner)
    if not verify(grant.name, opened.signature, _bound(run, peer)):
        raise PeerFault("not_admitted", f"an invitation that is not bound to {short(peer)}")
    return grant


def expiry_fault(grant: Grant, now_s: float) -> str:
    """Return why a leader no longer admits new peers by a grant; empty where it does.

    `now_s` is Unix time.
    """
    late_s = now_s - grant.expires_s
    return f"its invitation expired {late_s / 3600.0:.1f} h ago" if late_s > CLOCK_SKEW_S else ""


def proof_expiry_fault(proof: bytes, now_s: float) -> str:
    """As `expiry_fault`, for the proof in an offer; empty where the offer has no readable one."""
    try:
        grant = read_grant(_proofs.decode(proof).grant)
    except (PeerFault, *UNREADABLE):
        return ""
    return expiry_fault(grant, now_s)


def _bound(run: Digest, peer: PeerId) -> bytes:
    return _PROOF_DOMAIN + run + peer.encode()
