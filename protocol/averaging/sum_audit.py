"""Audits of sums: how any member can prove that a reducer lied about its slice.

A reducer signs the root of its slice's mean, and every contributor signed the root of its offer. An
auditor takes one chunk of the result and the same chunk of every listed contribution, each with its
proof. It adds them in the layout's order and compares. What it finds is evidence for everyone:
nothing in it depends on the auditor's word.

Audit targets derive from each member's signature of the certificate's hash. No other node can
predict them, so a reducer cannot choose a lie that no one audits. On average, `AUDITS_PER_ROUND`
members audit one chunk each in a round: a reducer of n that falsifies a share s of its slice is
caught in a round with a probability of about 2 s / n.

With several groups, one member of each group sums and signs its sum. A counterpart finishes the
slice, and its signature does not say which sums it used. The finisher audits, with the same
probability, a chunk of each sum that it used, and proves a wrong sum as above. A wrong result is
found in the same way. Whether its finisher or one of the sums was wrong cannot be proved: all
members that handled it are named together (`protocol/averaging/judgment.py`).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.averaging.vector_layout import CHUNK_ELEMENTS
from protocol.certificates.certificate import OpenCertificate
from protocol.codec import Codec, chunk_bytes
from protocol.digest import (
    Buffer,
    Digest,
    Levels,
    digest,
    leaf_digest,
    leaves_of,
    levels_of,
    range_proof,
    root_from_range,
)
from protocol.errors import PeerFault
from protocol.identity import Signer
from protocol.messages.base import MAX_MESSAGE_BYTES, UNREADABLE, Hash, Natural, Signed
from protocol.run.manifest import MAX_GROUP_LIMIT

_DOMAIN = b"hypergpu/audit/1\0"
_ROW_DOMAIN = b"hypergpu/audit-row/1\0"
# The audits of the whole plan in a round: a liar cannot escape them for long, and they move a few
# hundred kilobytes at most.
AUDITS_PER_ROUND = 2
# Twice the levels of the tree over the longest vector.
MAX_PROOF = 64
# float32 has the longest chunks of all codecs.
MAX_PIECE_BYTES = 4 * CHUNK_ELEMENTS
MAX_EVIDENCE_BYTES = MAX_MESSAGE_BYTES + (MAX_GROUP_LIMIT + 2) * (MAX_PIECE_BYTES + MAX_PROOF * 40)


class Piece(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """One chunk of an encoding, and its proof up to the signed root."""

    data: Annotated[bytes, Meta(max_length=MAX_PIECE_BYTES)]
    proof: Annotated[tuple[Hash, ...], Meta(max_length=MAX_PROOF)]


class Evidence(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """A reducer's signed result for a certificate's slice, and one chunk of all its inputs.

    The result is a `SliceResult` or a `GroupSum`.
    """

    certificate: Annotated[bytes, Meta(max_length=MAX_MESSAGE_BYTES)]
    result: Signed
    # The chunk's place in the whole vector.
    chunk: Natural
    reduced: Piece
    contributed: Annotated[
        # In the order of the inclusion's contributors, or of those in the group.
        tuple[Piece, ...],
        Meta(max_length=MAX_GROUP_LIMIT),
    ]


class AuditSample(msgspec.Struct, frozen=True, kw_only=True):
    """The chunk that a member audits."""

    slice: int
    chunk: int


_decoder = msgspec.msgpack.Decoder(Evidence)


def encode_evidence(evidence: Evidence) -> bytes:
    return msgspec.msgpack.encode(evidence)


def decode_evidence(data: bytes) -> Evidence:
    """Decode evidence.

    Raises:
        PeerFault: "malformed".
    """
    try:
        return _decoder.decode(data)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not evidence: {error}") from None


def draw_audit_samples(
    signer: Signer, certificate: OpenCertificate, *, everywhere: bool = False
) -> list[AuditSample]:
    """Draw the chunks that this member audits: mostly none, sometimes one.

    With `everywhere`, draw one of each slice that another member summed.
    """
    plan, owners = certificate.plan, certificate.inclusion.owners
    me = plan.index.get(signer.peer)
    if me is None or not certificate.contributors:
        return []
    drawn = digest(signer.sign(_DOMAIN + certificate.hash))
    whether, which, where = (
        int.from_bytes(drawn[start : start + 8], "big") for start in (0, 8, 16)
    )
    spans = plan.layout.slices
    slices = [i for i, owner in enumerate(owners) if owner != me and plan.layout.finishes(i)]
    if not everywhere:
        slices = (
            [slices[which % len(slices)]]
            if slices and whether % len(plan.members) < AUDITS_PER_ROUND
            else []
        )
    return [
        AuditSample(slice=i, chunk=spans[i][0] + where % (spans[i][1] - spans[i][0]))
        for i in slices
    ]


def draw_group_chunk(signer: Signer, inclusion: Digest, members: int, chunks: int) -> int | None:
    """Draw the chunk of a group's sum that its receiver audits, mostly None.

    The draw is from the inclusion: the receiver frees the sum before a certificate exists.
    """
    drawn = digest(signer.sign(_ROW_DOMAIN + inclusion))
    whether, where = (int.from_bytes(drawn[start : start + 8], "big") for start in (0, 8))
    return where % chunks if chunks and whether % members < AUDITS_PER_ROUND else None


def piece_of(encoded: Buffer, tree: Levels, codec: Codec, index: int) -> Piece:
    """Chunk `index` of an encoding with this tree. Raises `ValueError` when it does not exist."""
    size = chunk_bytes(codec)
    proof = range_proof(tree, index, index + 1)
    return Piece(
        data=bytes(memoryview(encoded)[index * size : (index + 1) * size]), proof=tuple(proof)
    )


def result_piece(encoded: Buffer, codec: Codec, index: int) -> Piece:
    """Chunk `index` of a slice's encoded mean, whose tree is built here."""
    return piece_of(
        encoded, levels_of(leaves_of(encoded, chunk_bytes(codec.result))), codec.result, index
    )


def check_piece(piece: Piece, index: int, total: int, root: Digest) -> None:
    """Check that a piece is chunk `index` of `total` under `root`.

    Raises:
        PeerFault: "bad_proof".
    """
    if root_from_range([leaf_digest(piece.data)], index, total, piece.proof) != root:
        raise PeerFault("bad_proof", f"not chunk {index} of {total} of what was signed")
