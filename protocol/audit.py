"""A sum that is wrong, proved: why a reducer that lies about its slice is named by whoever looks.

A reducer signs the root of its slice's mean, and every contributor signed the root of what it offered. Whoever holds one chunk of the result and
the same chunk of every listed contribution, each with its proof, adds them up in the layout's order and sees whether the reducer did. What it
finds is evidence for everybody: nothing in it is its own word.

Each member draws by itself whether it looks and where, from its own signature of the certificate's hash: nobody else can foresee it, so a
reducer cannot choose a lie that will not be looked at. `AUDITS_PER_ROUND` members look in a round, on average, each at one chunk: a reducer of n
that falsifies a share s of its slice is caught in a round with a probability of about 2 s / n.

In several rows a sum passes through more hands: one in each row sums, another finishes, and what it signs does not say which sums it took in. That it
is wrong is seen in the same way; whose fault it is cannot be proved, and those whose hands it passed through are told (`hands`).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from msgspec.structs import replace

from protocol.certificate import OpenCertificate, open_certificate
from protocol.codec import Codec, chunk_bytes, codec_named
from protocol.digest import Buffer, Digest, Levels, digest, leaf_digest, leaves_of, levels_of, range_proof, root_from_range
from protocol.errors import PeerFault
from protocol.identity import PeerId, Signer, short
from protocol.layout import CHUNK_ELEMENTS, chunk_count, element_range
from protocol.manifest import MAX_GROUP_LIMIT, Manifest
from protocol.messages import MAX_MESSAGE_BYTES, UNREADABLE, Hash, Natural, Signed, SliceResult, open_as
from protocol.reduction import mean_by_plan

_DOMAIN = b"hypergpu/audit/1\0"
AUDITS_PER_ROUND = 2  # of the whole plan: one that a liar cannot escape for long, and a few hundred kilobytes at most
MAX_PROOF = 64  # twice the levels of the tree over the longest vector
MAX_PIECE_BYTES = 4 * CHUNK_ELEMENTS  # at float32; every other codec takes less
MAX_EVIDENCE_BYTES = MAX_MESSAGE_BYTES + (MAX_GROUP_LIMIT + 2) * (MAX_PIECE_BYTES + MAX_PROOF * 40)


class Piece(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """One chunk of an encoding, and what leads from it to the root that was signed."""

    data: Annotated[bytes, Meta(max_length=MAX_PIECE_BYTES)]
    proof: Annotated[tuple[Hash, ...], Meta(max_length=MAX_PROOF)]


class Evidence(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """What a reducer signed for a certificate's slice, one chunk of it, and the same chunk of all that it was to sum."""

    certificate: Annotated[bytes, Meta(max_length=MAX_MESSAGE_BYTES)]
    result: Signed
    chunk: Natural  # of the whole vector
    reduced: Piece
    contributed: Annotated[tuple[Piece, ...], Meta(max_length=MAX_GROUP_LIMIT)]  # in the order of the cut's contributors


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Who summed wrongly, proved. `certificate` is the hash of the one it was for, `evidence` the digest of the proof."""

    peer: PeerId
    certificate: Digest
    number: int
    slice: int
    evidence: Digest

    def __str__(self) -> str:
        proof = self.evidence.hex()[:12]
        return f"it signed another sum of slice {self.slice} of round {self.number} than its contributors' bytes make (evidence {proof})"


class Draw(msgspec.Struct, frozen=True, kw_only=True):
    """Where a member looks."""

    slice: int
    chunk: int


_decoder = msgspec.msgpack.Decoder(Evidence)


def encode_evidence(evidence: Evidence) -> bytes:
    return msgspec.msgpack.encode(evidence)


def decode_evidence(data: bytes) -> Evidence:
    """Raises `PeerFault("malformed")`."""
    try:
        return _decoder.decode(data)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not evidence: {error}") from None


def draw(signer: Signer, certificate: OpenCertificate, *, everywhere: bool = False) -> list[Draw]:
    """The chunks that this member looks at: mostly none, sometimes one, and with `everywhere` one of each slice that somebody else summed."""
    plan, owners = certificate.plan, certificate.cut.owners
    me = plan.index.get(signer.peer)
    if me is None or not certificate.contributors:
        return []
    drawn = digest(signer.sign(_DOMAIN + certificate.hash))
    whether, which, where = (int.from_bytes(drawn[start : start + 8], "big") for start in (0, 8, 16))
    spans = plan.layout.slices
    slices = [i for i, owner in enumerate(owners) if owner != me and plan.layout.finishes(i)]
    if not everywhere:
        slices = [slices[which % len(slices)]] if slices and whether % len(plan.members) < AUDITS_PER_ROUND else []
    return [Draw(slice=i, chunk=spans[i][0] + where % (spans[i][1] - spans[i][0])) for i in slices]


def piece_of(encoded: Buffer, tree: Levels, codec: Codec, index: int) -> Piece:
    """Chunk `index` of an encoding with this tree. Raises `ValueError` when there is none."""
    size = chunk_bytes(codec)
    proof = range_proof(tree, index, index + 1)
    return Piece(data=bytes(memoryview(encoded)[index * size : (index + 1) * size]), proof=tuple(proof))


def result_piece(encoded: Buffer, codec: Codec, index: int) -> Piece:
    """As `piece_of`, of a slice's encoded mean, whose tree nobody keeps."""
    return piece_of(encoded, levels_of(leaves_of(encoded, chunk_bytes(codec.result))), codec.result, index)


def check_piece(piece: Piece, index: int, total: int, root: Digest) -> None:
    """Raises `PeerFault("bad_proof")` when it is not chunk `index` of `total` under `root`."""
    if root_from_range([leaf_digest(piece.data)], index, total, piece.proof) != root:
        raise PeerFault("bad_proof", f"not chunk {index} of {total} of what was signed")


def is_right(certificate: OpenCertificate, codec: Codec, parameters: int, evidence: Evidence) -> bool:
    """Whether the reducer's chunk is what the contributors' chunks make. Raises `PeerFault("malformed")` when one does not decode."""
    start, stop = element_range(evidence.chunk, evidence.chunk + 1, parameters)
    mean = np.empty(stop - start, np.float32)
    plan, pieces = certificate.plan, zip(certificate.contributors, evidence.contributed, strict=True)
    mean_by_plan(plan.plan.rows, {i: (plan.offers[i].samples, piece.data) for i, piece in pieces}, codec, mean)
    return codec.result.encode(mean) == evidence.reduced.data


def hands(certificate: OpenCertificate, index: int) -> tuple[PeerId, ...]:
    """Through whose hands slice `index` passed: who finished it, then who summed a row of it."""
    plan, owners = certificate.plan, certificate.cut.owners
    rows = plan.layout.rows_with(certificate.contributors)
    summed = (owners[i] for i in plan.layout.ranks[index] if plan.layout.row_of[i] in rows)
    return tuple(dict.fromkeys(plan.members[i] for i in (owners[index], *summed)))


def judge(evidence: Evidence, run: Digest, manifest: Manifest, parameters: int, known: OpenCertificate | None = None) -> Verdict:
    """Who is guilty by this evidence. Raises `PeerFault` when it proves nothing: "bad_proof" for an honest sum, too.

    `known` is the certificate in question, where it was verified before: the copy in the evidence is then not looked at, and what is left to
    check is one signature and the hashes of the chunks, where a whole certificate has dozens of signatures.
    """
    certificate = known or open_certificate(evidence.certificate, run, manifest, chunk_count(parameters))
    if len(certificate.plan.plan.rows) > 1:
        raise PeerFault("bad_proof", "in several rows no one member answers for a sum")
    result = open_as(SliceResult, evidence.result, run)
    members, total = certificate.plan.members, certificate.plan.plan.borders[-1]
    if (result.plan, result.cut) != (certificate.plan.digest, certificate.outcome.cut) or result.slice >= len(certificate.cut.owners):
        raise PeerFault("bad_proof", "the signed result is not of the certificate")
    first, last = certificate.plan.layout.slices[result.slice]
    if evidence.result.peer != members[certificate.cut.owners[result.slice]] or not first <= evidence.chunk < last:
        raise PeerFault("bad_proof", f"{short(evidence.result.peer)} was not to sum chunk {evidence.chunk}")
    if len(evidence.contributed) != len(certificate.contributors):
        raise PeerFault("bad_proof", f"{len(evidence.contributed)} of {len(certificate.contributors)} contributions")
    check_piece(evidence.reduced, evidence.chunk - first, last - first, result.root)
    for index, piece in zip(certificate.contributors, evidence.contributed, strict=True):
        check_piece(piece, evidence.chunk, total, certificate.plan.offers[index].contribution)
    if is_right(certificate, codec_named(manifest.codec), parameters, evidence):
        raise PeerFault("bad_proof", f"the sum of {short(evidence.result.peer)} is right")
    return Verdict(
        peer=evidence.result.peer,
        certificate=certificate.hash,
        number=certificate.outcome.number,
        slice=result.slice,
        evidence=_name_of(evidence, certificate),
    )


def _name_of(evidence: Evidence, certificate: OpenCertificate) -> Digest:
    """The same whichever votes the copy of the certificate holds."""
    return digest(encode_evidence(replace(evidence, certificate=certificate.hash)))
