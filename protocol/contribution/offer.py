"""An offer of one node to one round, and the bytes of the vectors it is made of."""

from __future__ import annotations

import msgspec

from protocol.averaging.vector_layout import Vector
from protocol.codec import codec_named
from protocol.digest import EMPTY_ROOT, Buffer, Digest, Levels
from protocol.errors import PeerFault

AS_THEY_ARE = codec_named("float32")


def as_bytes(vector: Vector) -> memoryview:
    """A vector as the codec float32 has it, without a copy on most machines."""
    return vector.astype("<f4", copy=False).data.cast("B")


def is_finite(vector: Vector) -> bool:
    """Whether it may enter a ledger."""
    try:
        AS_THEY_ARE.check(as_bytes(vector), vector.size)
    except PeerFault:
        return False
    return True


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What one node offers to one round. `seq` 0 and no bytes when there is nothing to offer."""

    seq: int = 0
    weight: int = 0
    encoded: Buffer = b""
    # Over the encoding's chunks; its root is the digest.
    tree: Levels = ()
    digest: Digest = EMPTY_ROOT


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """An offer of an earlier parent that was given out and that no certificate lists yet."""

    offer: Offer
    factor: float  # the share of its work that S still holds
    left: int  # samples of it in W


NOTHING = Offer()
