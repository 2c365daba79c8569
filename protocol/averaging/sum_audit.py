"""A sum that is wrong, proved: why a reducer that lies about its slice is named by whoever looks.

A reducer signs the root of its slice's mean, and every contributor signed the root of what it
offered. Whoever holds one chunk of the result and the same chunk of every listed contribution, each
with its proof, adds them up in the layout's order and sees whether the reducer did. What it finds
is evidence for everybody: nothing in it is its own word.

Each member draws by itself whether it looks and where, from its own signature of the certificate's
hash: nobody else can foresee it, so a reducer cannot choose a lie that will not be looked at.
`AUDITS_PER_ROUND` members look in a round, on average, each at one chunk: a reducer of n that
falsifies a share s of its slice is caught in a round with a probability of about 2 s / n.

In several rows one in each row sums, and signs that; another finishes, and what it signs does not
say which sums it took in. Whoever finishes looks by the same chance at a chunk of each sum that it
took in, and proves a wrong one as above. A wrong result is seen in the same way; that it was its
finisher's fault and no row's cannot be proved, and those through whose hands it passed are named
together (`protocol/averaging/judgment.py`).
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
# Of the whole plan: one that a liar cannot escape for long, and a few hundred kilobytes at most.
AUDITS_PER_ROUND = 2
# Twice the levels of the tree over the longest vector.
MAX_PROOF = 64
MAX_PIECE_BYTES = 4 * CHUNK_ELEMENTS  # at float32; every other codec takes less
MAX_EVIDENCE_BYTES = MAX_MESSAGE_BYTES + (MAX_GROUP_LIMIT + 2) * (MAX_PIECE_BYTES + MAX_PROOF * 40)


class Piece(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """One chunk of an encoding, and what leads from it to the root that was signed."""

    data: Annotated[bytes, Meta(max_length=MAX_PIECE_BYTES)]
    proof: Annotated[tuple[Hash, ...], Meta(max_length=MAX_PROOF)]


class Evidence(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """What a reducer signed for a certificate's slice (a `SliceResult`, or a `RowSum`), one chunk
    of it, and the same chunk of all that it was to sum.
    """

    certificate: Annotated[bytes, Meta(max_length=MAX_MESSAGE_BYTES)]
    result: Signed
    chunk: Natural  # of the whole vector
    reduced: Piece
    contributed: Annotated[
        tuple[Piece, ...], Meta(max_length=MAX_GROUP_LIMIT)
        # In the order of the cut's contributors, or of those in the row.
    ]


class AuditSample(msgspec.Struct, frozen=True, kw_only=True):
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


def draw_audit_samples(
    signer: Signer, certificate: OpenCertificate, *, everywhere: bool = False
) -> list[AuditSample]:
    """The chunks that this member looks at: mostly none, sometimes one, and with `everywhere` one
    of each slice that somebody else summed.
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
    """Which of the `chunks` of a row's sum whoever takes it in looks at, mostly None.

    It is let go before there is a certificate to draw from.
    """
    drawn = digest(signer.sign(_ROW_DOMAIN + inclusion))
    whether, where = (int.from_bytes(drawn[start : start + 8], "big") for start in (0, 8))
    return where % chunks if chunks and whether % members < AUDITS_PER_ROUND else None


def piece_of(encoded: Buffer, tree: Levels, codec: Codec, index: int) -> Piece:
    """Chunk `index` of an encoding with this tree. Raises `ValueError` when there is none."""
    size = chunk_bytes(codec)
    proof = range_proof(tree, index, index + 1)
    return Piece(
        data=bytes(memoryview(encoded)[index * size : (index + 1) * size]), proof=tuple(proof)
    )


def result_piece(encoded: Buffer, codec: Codec, index: int) -> Piece:
    """As `piece_of`, of a slice's encoded mean, whose tree nobody keeps."""
    return piece_of(
        encoded, levels_of(leaves_of(encoded, chunk_bytes(codec.result))), codec.result, index
    )


def check_piece(piece: Piece, index: int, total: int, root: Digest) -> None:
    """Raises `PeerFault("bad_proof")` when it is not chunk `index` of `total` under `root`."""
    if root_from_range([leaf_digest(piece.data)], index, total, piece.proof) != root:
        raise PeerFault("bad_proof", f"not chunk {index} of {total} of what was signed")
