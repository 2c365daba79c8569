"""The certificate: a round's signed outcome.

A certificate's hash is the digest of its outcome, the bytes that every vote signs. Nodes that
assemble it from different votes make the same certificate. It carries its plan, with all signed
offers, and its inclusion: anyone can check it with the run's manifest and the parent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.averaging.plan_sum import contributor_weights, step_terms
from protocol.certificates.decoded_plans import DecodedPlans
from protocol.certificates.merge import merge_parents, merge_round
from protocol.digest import Digest, digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, short
from protocol.messages.base import MAX_MESSAGE_BYTES, UNREADABLE, Id, Signature, Signed
from protocol.messages.envelope import decode_vote, open_as, payload_of, signature_is_valid
from protocol.messages.round import Inclusion, TrustVote, Vote
from protocol.planning.plan import OpenPlan
from protocol.rules.registry import rules_of
from protocol.rules.versions import RULES_4
from protocol.run.manifest import MAX_GROUP_LIMIT, Manifest

_DOMAIN = b"hypergpu/certificate/1\0"


class Certificate(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """A certificate on the wire and on disk."""

    # The payload of every vote.
    outcome: Annotated[bytes, Meta(max_length=4096)]
    plan: Signed
    inclusion: Signed
    votes: Annotated[tuple[tuple[Id, Signature], ...], Meta(max_length=MAX_GROUP_LIMIT)]


class OpenCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate whose signatures and arithmetic were checked.

    `protocol.certificates.tip.extend` checks its place in a lineage.
    """

    raw: bytes
    hash: Digest
    outcome: Vote
    plan: OpenPlan
    inclusion: Inclusion
    # The votes of this copy; another copy may have others.
    votes: tuple[tuple[PeerId, bytes], ...]

    @property
    def voters(self) -> tuple[PeerId, ...]:
        """The peers whose votes this copy has."""
        return tuple(peer for peer, _ in self.votes)

    @property
    def contributors(self) -> tuple[int, ...]:
        return self.inclusion.contributors

    @property
    def listed(self) -> dict[PeerId, int]:
        """The certified seq of each contributor."""
        return {self.plan.members[i]: self.plan.offers[i].seq for i in self.inclusion.contributors}

    @property
    def weights(self) -> tuple[int, ...]:
        """The weight of each contributor: its samples, or what rules 4 leave of them."""
        return contributor_weights(self.plan, self.inclusion.contributors)

    @property
    def samples(self) -> int:
        """The weight of all contributors together."""
        return sum(self.weights)

    @property
    def rounds(self) -> float:
        """The rounds of training behind the mean (`protocol/contribution/round_share.py`)."""
        return step_terms(self.plan, self.inclusion.contributors).rounds

    @property
    def loss(self) -> float | None:
        """The contributors' training loss, weighted as the mean; self-reported and unchecked."""
        losses = [self.plan.offers[i].loss for i in self.inclusion.contributors]
        known = [
            (loss, weight)
            for loss, weight in zip(losses, self.weights, strict=True)
            if loss is not None
        ]
        total = sum(weight for _, weight in known)
        return sum(loss * weight for loss, weight in known) / total if total else None


_decoder = msgspec.msgpack.Decoder(Certificate)


def certificate_hash(run: Digest, outcome: bytes) -> Digest:
    """The name of a certificate: the digest of the outcome that its voters signed."""
    return digest(_DOMAIN, run, outcome)


def hash_of(run: Digest, raw: bytes) -> Digest:
    """The name of the certificate in these bytes, unchecked.

    Raises:
        PeerFault: "malformed".
    """
    try:
        return certificate_hash(run, _decoder.decode(raw).outcome)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a certificate: {error}") from None


def parents_of(raw: bytes) -> tuple[Digest, ...]:
    """The parents of the certificate in these bytes, unchecked.

    Raises:
        PeerFault: "malformed".
    """
    try:
        return decode_vote(_decoder.decode(raw).outcome).parents
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a certificate: {error}") from None


def assemble(vote: Vote, plan: Signed, inclusion: Signed, votes: Mapping[PeerId, bytes]) -> bytes:
    """Assemble a certificate from the votes (peer to signature) for one outcome."""
    return msgspec.msgpack.encode(
        Certificate(
            outcome=payload_of(vote),
            plan=plan,
            inclusion=inclusion,
            votes=tuple(sorted(votes.items())),
        )
    )


def certificate_from(
    run: Digest,
    *,
    vote: Vote,
    plan: OpenPlan,
    plan_signed: Signed,
    inclusion_signed: Signed,
    votes: Mapping[PeerId, bytes],
) -> OpenCertificate:
    """Assemble a certificate from a plan, an inclusion and votes that this node has checked.

    `votes` maps a peer to its signature. The caller has counted a majority of the plan in it.
    """
    return OpenCertificate(
        raw=assemble(vote, plan_signed, inclusion_signed, votes),
        hash=certificate_hash(run, payload_of(vote)),
        outcome=vote,
        plan=plan,
        inclusion=open_as(Inclusion, inclusion_signed, run, trusted=True),
        votes=tuple(sorted(votes.items())),
    )


def open_certificate(
    raw: bytes,
    run: Digest,
    manifest: Manifest,
    chunks: int | None,
    *,
    trusted: bool = False,
    plans: DecodedPlans | None = None,
) -> OpenCertificate:
    """Check everything that a certificate proves by itself.

    The checks cover signatures, hashes, and that the votes are a majority of the plan. The plan is
    not made again: the majority did that before it voted, and a later release may plan otherwise
    (`protocol/planning/plan.py`).

    Args:
        raw: the certificate's bytes.
        run: the run's id.
        manifest: the run's manifest.
        chunks: of the run's model; None where it is not known.
        trusted: check only that the parts belong together. For certificates that this node verified
            before and read from its own disk, perhaps with an earlier release.
        plans: plans that this node opened lately.

    Raises:
        PeerFault: "bad_certificate", unless a part has its own reason.
    """
    if len(raw) > MAX_MESSAGE_BYTES:
        raise PeerFault("oversized", f"a certificate of {len(raw)} bytes")
    try:
        certificate = _decoder.decode(raw)
        vote = decode_vote(certificate.outcome)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a certificate: {error}") from None
    plan = (plans or DecodedPlans(run, manifest)).read(certificate.plan, chunks, trusted=trusted)
    inclusion = open_as(Inclusion, certificate.inclusion, run, trusted=trusted)
    if (
        vote.plan != plan.digest
        or inclusion.plan != plan.digest
        or vote.inclusion != certificate.inclusion.digest
    ):
        raise PeerFault("bad_certificate", "the votes name another plan or inclusion")
    if certificate.inclusion.peer != plan.leader:
        raise PeerFault("bad_certificate", "the inclusion is not from the plan's leader")
    merging = len(vote.parents) == 2
    if merging and (
        vote.parents[0] == vote.parents[1] or vote.parents != merge_parents(*vote.parents)
    ):
        raise PeerFault("bad_certificate", "a merge needs two parents in order")
    if (merge_round(vote.parents), vote.number, vote.view) != (
        plan.plan.parent,
        plan.plan.number,
        plan.plan.view,
    ):
        raise PeerFault("bad_certificate", "the votes are for another round than the plan")
    if isinstance(vote, TrustVote) != (manifest.rules >= RULES_4):
        raise PeerFault("bad_certificate", f"the votes are not those of rules {manifest.rules}")
    opened = OpenCertificate(
        raw=raw,
        hash=certificate_hash(run, certificate.outcome),
        outcome=vote,
        plan=plan,
        inclusion=inclusion,
        votes=certificate.votes,
    )
    if not trusted:
        rules_of(manifest).check_inclusion(inclusion, plan, manifest, merging=merging)
        _check_votes(opened, certificate, run, manifest)
    return opened


def _check_votes(
    opened: OpenCertificate, certificate: Certificate, run: Digest, manifest: Manifest
) -> None:
    """Check that a majority of the plan signed the outcome.

    In runs of rules 4, the parent's voters decide, whom `tip.extend` knows.

    Raises:
        PeerFault: "bad_certificate".
    """
    plan, voters = opened.plan, opened.voters
    if list(voters) != sorted(set(voters)) or not set(voters) <= set(plan.members):
        raise PeerFault("bad_certificate", "a voter votes twice or is not in the plan")
    needed = plan.majority if manifest.rules < RULES_4 else 0
    if len(voters) < max(needed, manifest.group.min_peers):
        raise PeerFault(
            "bad_certificate", f"{len(voters)} votes are no majority of {len(plan.members)}"
        )
    for peer, signature in certificate.votes:
        if not signature_is_valid(run, certificate.outcome, peer, signature):
            raise PeerFault("bad_certificate", f"the vote of {short(peer)} is not signed by it")
