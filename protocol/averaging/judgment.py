"""What evidence proves, and against whom: a signed mean compared with its inputs.

SliceResult, one group      the mean of all listed contributions: the signer of another mean lied
GroupSum                    the mean of the contributions in the group: the same
SliceResult, many groups    the mean of the groups' means: another mean is wrong, but its signer may
                            have computed it rightly from a wrong sum
"""

from __future__ import annotations

import msgspec
import numpy as np
from msgspec.structs import replace

from protocol.averaging.plan_sum import PlanSum, codec_of
from protocol.averaging.reduction import GROUP_CODEC
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
from protocol.run.manifest import Manifest


class Judgment(msgspec.Struct, frozen=True, kw_only=True):
    """A proof that a peer summed wrongly."""

    peer: PeerId
    # The hash of the certificate.
    certificate: Digest
    number: int
    slice: int
    # The digest of the evidence.
    evidence: Digest

    def __str__(self) -> str:
        proof = self.evidence.hex()[:12]
        return (
            f"it signed another sum of slice {self.slice} of round {self.number} "
            f"than its contributors' bytes make (evidence {proof})"
        )


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A signed claim: chunks `[first, last)` of the mean of `contributors` have this `root`."""

    peer: PeerId
    slice: int
    first: int
    last: int
    root: Digest
    contributors: tuple[int, ...]
    # Whether it is a group's sum, in float32; else it is a result, in the codec's encoding.
    group: bool
    # Whether the signer alone answers for it: no other member's sum went into it.
    alone: bool


def claim_of(certificate: OpenCertificate, signed: Signed, run: Digest) -> Claim:
    """The claim that `signed` makes about this certificate.

    Raises:
        PeerFault: "bad_proof" when its signer had nothing of the kind to sign.
    """
    message = open_signed(signed, run)
    if not isinstance(message, SliceResult | GroupSum):
        raise PeerFault("bad_proof", f"a {type(message).__name__} is no sum")
    plan, inclusion = certificate.plan, certificate.inclusion
    layout, owners, count = plan.layout, inclusion.owners, len(plan.members)
    summer = message.part if isinstance(message, GroupSum) else message.slice
    if (message.plan, message.inclusion) != (plan.digest, certificate.outcome.inclusion) or max(
        message.slice, summer
    ) >= count:
        raise PeerFault("bad_proof", "the signed result is not of the certificate")
    first, last = layout.slices[message.slice]
    asked = message.slice in layout.counterparts[summer] if isinstance(message, GroupSum) else True
    if signed.peer != plan.members[owners[summer]] or not asked:
        raise PeerFault("bad_proof", f"{short(signed.peer)} was not to sum slice {message.slice}")
    group = isinstance(message, GroupSum)
    of = tuple(
        i
        for i in inclusion.contributors
        if not group or layout.group_of[i] == layout.group_of[summer]
    )
    alone = group or len(layout.groups) == 1
    return Claim(
        peer=signed.peer,
        slice=message.slice,
        first=first,
        last=last,
        root=message.root,
        contributors=of,
        group=group,
        alone=alone,
    )


def is_right(
    certificate: OpenCertificate, claim: Claim, codec: Codec, parameters: int, evidence: Evidence
) -> bool:
    """Whether the contributors' chunks make the reducer's chunk.

    Raises:
        PeerFault: "malformed" when a chunk does not decode.
    """
    start, stop = element_range(evidence.chunk, evidence.chunk + 1, parameters)
    mean, codec = np.empty(stop - start, np.float32), codec_of(certificate.plan, codec)
    parts = {
        i: piece.data for i, piece in zip(claim.contributors, evidence.contributed, strict=True)
    }
    sums = PlanSum(certificate.plan, certificate.contributors, parameters)
    if claim.group:
        sums.mean([(i, parts[i]) for i in sorted(parts)], codec, mean)
        return codec_named(GROUP_CODEC).encode(mean) == evidence.reduced.data
    sums.mean_by_plan(parts, codec, mean)
    return codec.result.encode(mean) == evidence.reduced.data


def hands(certificate: OpenCertificate, index: int) -> tuple[PeerId, ...]:
    """The members that handled slice `index`: its finisher, then its summers in the groups."""
    plan, owners = certificate.plan, certificate.inclusion.owners
    groups = plan.layout.groups_with(certificate.contributors)
    summed = (
        owners[i] for i in plan.layout.counterparts[index] if plan.layout.group_of[i] in groups
    )
    return tuple(dict.fromkeys(plan.members[i] for i in (owners[index], *summed)))


def judge(
    evidence: Evidence,
    run: Digest,
    manifest: Manifest,
    parameters: int,
    known: OpenCertificate | None = None,
) -> Judgment:
    """Judge evidence: which peer summed wrongly.

    Args:
        evidence: the evidence.
        run: the run's id.
        manifest: the run's manifest.
        parameters: of the run's model.
        known: the certificate in question, where it was verified before. The copy in the evidence
            is then ignored. That leaves one signature and the hashes of the chunks to check, where
            a whole certificate has dozens of signatures.

    Raises:
        PeerFault: the evidence proves nothing; "bad_proof" also for an honest sum.
    """
    certificate = known or open_certificate(
        evidence.certificate, run, manifest, chunk_count(parameters)
    )
    claim, total = claim_of(certificate, evidence.result, run), certificate.plan.plan.borders[-1]
    if not claim.alone:
        raise PeerFault("bad_proof", "with several groups no single member answers for a result")
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
    """The name of the evidence, whichever votes its copy of the certificate holds."""
    return digest(encode_evidence(replace(evidence, certificate=certificate.hash)))
