"""The certificate: a round's signed outcome, and the lineage that certificates form.

A certificate's hash is the digest of its outcome (the bytes every vote signs), so whoever assembles
it from whichever votes makes the same certificate. It carries its plan with all signed offers and
its Cut: anybody can check all of it with nothing but the run's manifest and the parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.certificates.decoded_plans import DecodedPlans
from protocol.certificates.leader_order import leader_of
from protocol.certificates.merge import merge_parents, merge_round
from protocol.contribution.round_share import rounds_in
from protocol.digest import Digest, digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, short
from protocol.messages.base import MAX_MESSAGE_BYTES, UNREADABLE, Id, Signature, Signed
from protocol.messages.envelope import open_as, payload_of, signature_is_valid
from protocol.messages.round import Inclusion, Vote
from protocol.planning.group_size_history import GroupSizeHistory
from protocol.planning.plan import OpenPlan
from protocol.ports.trainer import Lane
from protocol.rules.registry import rule_set, rules_of
from protocol.run.manifest import MAX_GROUP_LIMIT, Manifest

_DOMAIN = b"hypergpu/certificate/1\0"
# Spare lanes of the data order for members the parent certificate does not know yet.
NEWCOMER_LANES = 8


class Certificate(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """As it travels and as it is stored."""

    outcome: Annotated[bytes, Meta(max_length=4096)]  # the payload of every vote
    plan: Signed
    inclusion: Signed
    votes: Annotated[tuple[tuple[Id, Signature], ...], Meta(max_length=MAX_GROUP_LIMIT)]


class OpenCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate whose signatures and arithmetic were checked; its place in a lineage is checked
    by `Lineage.extend`.
    """

    raw: bytes
    hash: Digest
    outcome: Vote
    plan: OpenPlan
    inclusion: Inclusion
    voters: tuple[PeerId, ...]

    @property
    def contributors(self) -> tuple[int, ...]:
        return self.inclusion.contributors

    @property
    def listed(self) -> dict[PeerId, int]:
        """The seq that is certified for each contributor."""
        return {self.plan.members[i]: self.plan.offers[i].seq for i in self.inclusion.contributors}

    @property
    def samples(self) -> int:
        return sum(self.plan.offers[i].samples for i in self.inclusion.contributors)

    @property
    def rounds(self) -> float:
        """Rounds of training behind the mean (`protocol/contribution/round_share.py`)."""
        return rounds_in(self.plan.offers[i] for i in self.inclusion.contributors)

    @property
    def loss(self) -> float | None:
        """The contributors' own training loss, weighted by samples: what they say, not what anybody
        checked.
        """
        parts = [
            (self.plan.offers[i].loss, self.plan.offers[i].samples)
            for i in self.inclusion.contributors
        ]
        known = [(loss, samples) for loss, samples in parts if loss is not None]
        weight = sum(samples for _, samples in known)
        return sum(loss * samples for loss, samples in known) / weight if weight else None


_decoder = msgspec.msgpack.Decoder(Certificate)


def certificate_hash(run: Digest, outcome: bytes) -> Digest:
    """What names a certificate: the digest of the outcome its voters signed."""
    return digest(_DOMAIN, run, outcome)


def hash_of(run: Digest, raw: bytes) -> Digest:
    """What names the certificate in these bytes, which nobody checks here.

    Raises `PeerFault("malformed")`.
    """
    try:
        return certificate_hash(run, _decoder.decode(raw).outcome)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a certificate: {error}") from None


def parents_of(raw: bytes) -> tuple[Digest, ...]:
    """The certificates that the one in these bytes names as its parents; nobody checks it here.

    Raises `PeerFault("malformed")`.
    """
    try:
        return msgspec.msgpack.decode(_decoder.decode(raw).outcome, type=Vote).parents
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a certificate: {error}") from None


def assemble(vote: Vote, plan: Signed, inclusion: Signed, votes: Mapping[PeerId, bytes]) -> bytes:
    """A certificate from the votes (peer to signature) for one outcome."""
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

    `votes` maps a peer to its signature. The caller has counted a majority of the plan among them.
    """
    return OpenCertificate(
        raw=assemble(vote, plan_signed, inclusion_signed, votes),
        hash=certificate_hash(run, payload_of(vote)),
        outcome=vote,
        plan=plan,
        inclusion=open_as(Inclusion, inclusion_signed, run, trusted=True),
        voters=tuple(sorted(votes)),
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
    """Check everything a certificate says by itself.

    Raises `PeerFault`; `bad_certificate` unless a part has its own reason.

    Signatures, hashes, and that the votes are a majority of the plan. The plan is not made again:
    the majority did that before it voted, and a later release may plan otherwise
    (`protocol/planning/plan.py`).

    `trusted` asks only whether the parts belong together: for what this node verified once and read
    back from its own disk, perhaps with an earlier release. `plans` are those that it opened
    lately.
    """
    if len(raw) > MAX_MESSAGE_BYTES:
        raise PeerFault("oversized", f"a certificate of {len(raw)} bytes")
    try:
        certificate = _decoder.decode(raw)
        vote = msgspec.msgpack.decode(certificate.outcome, type=Vote)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a certificate: {error}") from None
    plan = (plans or DecodedPlans(run, manifest)).read(certificate.plan, chunks, trusted=trusted)
    inclusion = open_as(Inclusion, certificate.inclusion, run, trusted=trusted)
    if (
        vote.plan != plan.digest
        or inclusion.plan != plan.digest
        or vote.inclusion != certificate.inclusion.digest
    ):
        raise PeerFault("bad_certificate", "the plan or the cut is not the one that was voted for")
    if certificate.inclusion.peer != plan.leader:
        raise PeerFault("bad_certificate", "the cut is not from the plan's leader")
    merging = len(vote.parents) == 2
    if merging and (
        vote.parents[0] == vote.parents[1] or vote.parents != merge_parents(*vote.parents)
    ):
        raise PeerFault("bad_certificate", "the parents of a merge are not two in order")
    if (merge_round(vote.parents), vote.number, vote.view) != (
        plan.plan.parent,
        plan.plan.number,
        plan.plan.view,
    ):
        raise PeerFault("bad_certificate", "the votes are for another round than the plan")
    voters = tuple(peer for peer, _ in certificate.votes)
    opened = OpenCertificate(
        raw=raw,
        hash=certificate_hash(run, certificate.outcome),
        outcome=vote,
        plan=plan,
        inclusion=inclusion,
        voters=voters,
    )
    if not trusted:
        rules_of(manifest).check_inclusion(inclusion, plan, manifest, merging=merging)
        _check_votes(opened, certificate, run, manifest)
    return opened


def _check_votes(
    opened: OpenCertificate, certificate: Certificate, run: Digest, manifest: Manifest
) -> None:
    """Whether a majority of the plan signed the outcome. Raises `PeerFault("bad_certificate")`."""
    plan, voters = opened.plan, opened.voters
    if list(voters) != sorted(set(voters)) or not set(voters) <= set(plan.members):
        raise PeerFault("bad_certificate", "a voter votes twice or is not in the plan")
    if len(voters) < max(plan.majority, manifest.group.min_peers):
        raise PeerFault(
            "bad_certificate", f"{len(voters)} votes are no majority of {len(plan.members)}"
        )
    for peer, signature in certificate.votes:
        if not signature_is_valid(run, certificate.outcome, peer, signature):
            raise PeerFault("bad_certificate", f"the vote of {short(peer)} is not signed by it")


class Tip(msgspec.Struct, frozen=True, kw_only=True):
    """Where a lineage stands: what must be remembered of all certificates up to here to check the
    next one.
    """

    hash: Digest
    number: int
    # Candidates for leading, in ascending order; empty at genesis.
    members: tuple[PeerId, ...]
    last_seq: Mapping[PeerId, int]
    samples: int
    # Of the anchor and momentum; empty bytes at genesis, whose state follows from the manifest.
    state: Digest
    lane_base: int  # where the next round's data begins
    # What the last plan leaves for the next one.
    layout: GroupSizeHistory | None = None

    def lane(self, peer: PeerId) -> Lane:
        """Which samples `peer` draws in the round after this tip: members have a lane each,
        newcomers share a few by hash.
        """
        count = len(self.members)
        if peer in self.members:
            index = self.members.index(peer)
        else:
            index = (
                count + int.from_bytes(digest(self.hash, peer.encode())[:4], "big") % NEWCOMER_LANES
            )
        return Lane(base=self.lane_base, index=index, stride=count + NEWCOMER_LANES)


def encode_tip(tip: Tip) -> bytes:
    """A tip for this node's own disk, beside the state that it names."""
    return msgspec.msgpack.encode(tip)


def decode_tip(data: bytes) -> Tip | None:
    """A tip from this node's own disk; None where another release wrote none, or another kind."""
    try:
        return msgspec.msgpack.decode(data, type=Tip) if data else None
    except UNREADABLE:
        return None


def genesis(run: Digest) -> Tip:
    """Round 0's parent is the run id."""
    return Tip(hash=run, number=0, members=(), last_seq={}, samples=0, state=b"", lane_base=0)


def _check_leader(plan: OpenPlan, members: Iterable[PeerId]) -> None:
    order = rule_set(plan.rules).leader_order(plan.plan.parent, members)
    if plan.plan.view < len(order) and plan.leader != leader_of(order, plan.plan.view):
        raise PeerFault(
            "bad_certificate",
            f"{short(plan.leader)} does not lead view {plan.plan.view} of round {plan.plan.number}",
        )


def _check_history(plan: OpenPlan, left: GroupSizeHistory | None) -> None:
    """A plan that remembers what was not could have other rows than it should.

    After a merge nothing is remembered.
    """
    if plan.plan.before != left:
        raise PeerFault(
            "bad_certificate",
            f"the plan of round {plan.plan.number} remembers other rows than its parent left",
        )


def _present(certificate: OpenCertificate) -> tuple[PeerId, ...]:
    return tuple(certificate.plan.members[i] for i in certificate.inclusion.present)


def extend(tip: Tip, certificate: OpenCertificate, *, trusted: bool = False) -> Tip:
    """The lineage one certificate further.

    Raises `PeerFault("bad_certificate")` when it does not follow from `tip`.

    `trusted` asks for parent and number alone: for what this node verified once, perhaps with
    another release of this program.
    """
    outcome, plan = certificate.outcome, certificate.plan
    if outcome.parents != (tip.hash,) or outcome.number != tip.number + 1:
        raise PeerFault(
            "bad_certificate",
            f"certificate {outcome.number} does not follow certificate {tip.number}",
        )
    if not trusted:
        _check_leader(plan, tip.members)
        _check_history(plan, tip.layout)
    last_seq = dict(tip.last_seq)
    for peer, seq in certificate.listed.items():
        if seq <= last_seq.get(peer, 0) and not trusted:
            raise PeerFault("bad_certificate", f"seq {seq} of {short(peer)} was certified before")
        last_seq[peer] = max(seq, last_seq.get(peer, 0))
    # Also of those whose work the cut left out: they train on, and must not meet their own samples
    # again.
    longest = max(
        *(plan.offers[i].samples for i in certificate.contributors),
        *(offer.trajectory.drawn for offer in plan.offers),
    )
    return Tip(
        hash=certificate.hash,
        number=outcome.number,
        members=_present(certificate),
        last_seq=last_seq,
        samples=tip.samples + certificate.samples,
        state=outcome.state,
        lane_base=tip.lane_base + longest * (len(tip.members) + NEWCOMER_LANES),
        layout=plan.plan.after,
    )


def merge(
    first: Tip,
    second: Tip,
    weights: tuple[int, int],
    certificate: OpenCertificate,
    *,
    trusted: bool = False,
) -> Tip:
    """The tip where two branches meet.

    `weights` are the samples certified on each since they parted.

    Raises `PeerFault("bad_certificate")`; `trusted` as for `extend`.
    """
    outcome = certificate.outcome
    if (
        outcome.parents != (first.hash, second.hash)
        or outcome.number != max(first.number, second.number) + 1
    ):
        raise PeerFault(
            "bad_certificate",
            f"certificate {outcome.number} does not merge certificates {first.number} and {second.number}",
        )
    if not trusted:
        _check_leader(certificate.plan, {*first.members, *second.members})
        _check_history(certificate.plan, None)
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
        lane_base=max(first.lane_base, second.lane_base),
        layout=certificate.plan.plan.after,
    )


def prefer(a: Tip, b: Tip) -> Tip:
    """Which of two tips that do not descend from each other to follow: more certified samples, then
    the smaller hash.
    """
    return max(a, b, key=lambda tip: (tip.samples, bytes(255 - byte for byte in tip.hash)))
