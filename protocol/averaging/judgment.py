"""What evidence proves, and against whom: a signed mean held against the bytes that it was to be
made of.

SliceResult, one row       the mean of all listed contributions: whoever signed another one lied
RowSum                     the mean of those that stand in the row: the same
SliceResult, several rows  the mean of the rows' means: another one is wrong, but it may have been made rightly from a sum that was not
"""

from __future__ import annotations

import msgspec
import numpy as np
from msgspec.structs import replace

from protocol.averaging.reduction import GROUP_CODEC, mean_by_plan
from protocol.averaging.sum_audit import Evidence, check_piece, encode_evidence
from protocol.averaging.vector_layout import chunk_count, element_range
from protocol.certificates.certificate import OpenCertificate, open_certificate
from protocol.codec import Codec, codec_named
from protocol.digest import Digest, digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, short
from protocol.messages.base import Signed
from protocol.messages.envelope import open_signed
from protocol.messages.round import GroupSum, SliceResult
from protocol.rules.registry import rule_set
from protocol.run.manifest import Manifest


class Judgment(msgspec.Struct, frozen=True, kw_only=True):
    """Who summed wrongly, proved.

    `certificate` is the hash of the one it was for, `evidence` the digest of the proof.
    """

    peer: PeerId
    certificate: Digest
    number: int
    slice: int
    evidence: Digest

    def __str__(self) -> str:
        proof = self.evidence.hex()[:12]
        return f"it signed another sum of slice {self.slice} of round {self.number} than its contributors' bytes make (evidence {proof})"


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody signed: that the chunks from `first` to before `last` of the mean of these
    `contributors` have this `root`.
    """

    peer: PeerId
    slice: int
    first: int
    last: int
    root: Digest
    contributors: tuple[int, ...]
    # A row's sum, in float32; else the result, in the codec's own encoding of it.
    row: bool
    alone: bool  # whether nobody else's sum went into it


def claim_of(certificate: OpenCertificate, signed: Signed, run: Digest) -> Claim:
    """What `signed` says of this certificate.

    Raises `PeerFault`, "bad_proof" when it is nothing about it that its signer was to say.
    """
    said = open_signed(signed, run)
    if not isinstance(said, SliceResult | GroupSum):
        raise PeerFault("bad_proof", f"a {type(said).__name__} is no sum")
    plan, inclusion = certificate.plan, certificate.inclusion
    layout, owners, count = plan.layout, inclusion.owners, len(plan.members)
    summer = said.part if isinstance(said, GroupSum) else said.slice
    if (said.plan, said.inclusion) != (plan.digest, certificate.outcome.inclusion) or max(
        said.slice, summer
    ) >= count:
        raise PeerFault("bad_proof", "the signed result is not of the certificate")
    first, last = layout.slices[said.slice]
    asked = said.slice in layout.counterparts[summer] if isinstance(said, GroupSum) else True
    if signed.peer != plan.members[owners[summer]] or not asked:
        raise PeerFault("bad_proof", f"{short(signed.peer)} was not to sum slice {said.slice}")
    row = isinstance(said, GroupSum)
    of = tuple(
        i
        for i in inclusion.contributors
        if not row or layout.group_of[i] == layout.group_of[summer]
    )
    alone = row or len(layout.groups) == 1
    return Claim(
        peer=signed.peer,
        slice=said.slice,
        first=first,
        last=last,
        root=said.root,
        contributors=of,
        row=row,
        alone=alone,
    )


def is_right(
    certificate: OpenCertificate, claim: Claim, codec: Codec, parameters: int, evidence: Evidence
) -> bool:
    """Whether the reducer's chunk is what the contributors' chunks make.

    Raises `PeerFault("malformed")` when one does not decode.
    """
    start, stop = element_range(evidence.chunk, evidence.chunk + 1, parameters)
    mean = np.empty(stop - start, np.float32)
    offers = certificate.plan.offers
    parts = {
        i: (offers[i].samples, piece.data)
        for i, piece in zip(claim.contributors, evidence.contributed, strict=True)
    }
    mean_of = rule_set(certificate.plan.rules).weighted_mean
    if claim.row:
        mean_of([parts[i] for i in sorted(parts)], codec, mean)
        return codec_named(GROUP_CODEC).encode(mean) == evidence.reduced.data
    mean_by_plan(certificate.plan.plan.groups, parts, codec, mean, mean_of)
    return codec.result.encode(mean) == evidence.reduced.data


def hands(certificate: OpenCertificate, index: int) -> tuple[PeerId, ...]:
    """Through whose hands slice `index` passed: who finished it, then who summed a row of it."""
    plan, owners = certificate.plan, certificate.inclusion.owners
    rows = plan.layout.groups_with(certificate.contributors)
    summed = (owners[i] for i in plan.layout.counterparts[index] if plan.layout.group_of[i] in rows)
    return tuple(dict.fromkeys(plan.members[i] for i in (owners[index], *summed)))


def judge(
    evidence: Evidence,
    run: Digest,
    manifest: Manifest,
    parameters: int,
    known: OpenCertificate | None = None,
) -> Judgment:
    """Who is guilty by this evidence.

    Raises `PeerFault` when it proves nothing: "bad_proof" for an honest sum, too.

    `known` is the certificate in question, where it was verified before: the copy in the evidence
    is then not looked at, and what is left to check is one signature and the hashes of the chunks,
    where a whole certificate has dozens of signatures.
    """
    certificate = known or open_certificate(
        evidence.certificate, run, manifest, chunk_count(parameters)
    )
    claim, total = claim_of(certificate, evidence.result, run), certificate.plan.plan.borders[-1]
    if not claim.alone:
        raise PeerFault("bad_proof", "in several rows no one member answers for a result")
    if not claim.first <= evidence.chunk < claim.last:
        raise PeerFault("bad_proof", f"{short(claim.peer)} was not to sum chunk {evidence.chunk}")
    if len(evidence.contributed) != len(claim.contributors):
        raise PeerFault(
            "bad_proof", f"{len(evidence.contributed)} of {len(claim.contributors)} contributions"
        )
    check_piece(
        evidence.reduced, evidence.chunk - claim.first, claim.last - claim.first, claim.root
    )
    for index, piece in zip(claim.contributors, evidence.contributed, strict=True):
        check_piece(piece, evidence.chunk, total, certificate.plan.offers[index].contribution)
    if is_right(certificate, claim, codec_named(manifest.codec), parameters, evidence):
        raise PeerFault("bad_proof", f"the sum of {short(claim.peer)} is right")
    return Judgment(
        peer=claim.peer,
        certificate=certificate.hash,
        number=certificate.outcome.number,
        slice=claim.slice,
        evidence=_name_of(evidence, certificate),
    )


def _name_of(evidence: Evidence, certificate: OpenCertificate) -> Digest:
    """The same whichever votes the copy of the certificate holds."""
    return digest(encode_evidence(replace(evidence, certificate=certificate.hash)))
