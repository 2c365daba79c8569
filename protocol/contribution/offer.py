"""A node's offer to a round, and the bytes of its vectors."""

from __future__ import annotations

import msgspec

from protocol.averaging.vector_layout import Vector
from protocol.codec import Codec, chunk_bytes, codec_named
from protocol.digest import EMPTY_ROOT, Buffer, Digest, Levels, leaves_of, levels_of
from protocol.errors import PeerFault

AS_THEY_ARE = codec_named("float32")


def as_bytes(vector: Vector) -> memoryview:
    """The bytes of a vector in the codec float32, without a copy on most machines."""
    return vector.astype("<f4", copy=False).data.cast("B")


def is_finite(vector: Vector) -> bool:
    """Whether all elements are finite, so that the vector may enter a ledger."""
    try:
        AS_THEY_ARE.check(as_bytes(vector), vector.size)
    except PeerFault:
        return False
    return True


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What one node offers to one round; without work, `seq` is 0 and the encoding empty."""

    seq: int = 0
    weight: int = 0
    encoded: Buffer = b""
    # The Merkle tree over the encoding's chunks; its root is the digest.
    tree: Levels = ()
    digest: Digest = EMPTY_ROOT


NOTHING = Offer()


def offer_from_disk(codec: Codec, *, seq: int, weight: int, encoded: Buffer, name: Digest) -> Offer:
    """The offer that a record on disk describes."""
    tree = levels_of(leaves_of(encoded, chunk_bytes(codec)))
    return Offer(seq=seq, weight=weight, encoded=encoded, tree=tree, digest=name)
