"""Defines the headers of the bulk protocol, which announce the bytes that follow.

Each parcel on a bulk stream is one framed header and its payload. The class name of a header is
its tag on the wire.

A receiver begins its own direction of the stream with one framed `ReceiverAbilities`. Receivers of
earlier releases send nothing there, and their senders read nothing.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from daemon.swarm.frames import decode_as, frame
from protocol.averaging.vector_layout import MAX_PARAMETERS
from protocol.errors import PeerFault
from protocol.messages.base import UNREADABLE, Hash, Index, Signed

PROTOCOL = "/hypergpu/bulk/1"
# A proof has two digests for each level and is at most 2 KB; a signed result has 300 bytes.
HEADER_BYTES = 1 << 16


class SliceHeader(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True):
    """Announces the sender's contribution to one slice.

    `proof` leads from the slice's chunks to the digest in the sender's offer.
    """

    plan: Hash
    slice: Index
    proof: Annotated[tuple[Hash, ...], Meta(max_length=64)]
    size: Annotated[int, Meta(ge=0, le=4 * MAX_PARAMETERS)]


class ResultHeader(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True):
    """Announces an encoded mean with the `SliceResult` that its reducer signed."""

    result: Signed
    size: Annotated[int, Meta(ge=0, le=4 * MAX_PARAMETERS)]


# The tag keeps an earlier name of this class, because the tag is part of the bulk protocol.
class GroupSumHeader(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="RowHeader"):
    """Announces the mean of one group with the `GroupSum` that its reducer signed."""

    summed: Signed
    size: Annotated[int, Meta(ge=0, le=4 * MAX_PARAMETERS)]


class ResultPieceHeader(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True):
    """Announces a piece of the result that the sender makes of its own slice.

    The piece is made of all contributions that the plan expects. It travels before the leader's
    inclusion, and nothing proves it until a `ResultProofHeader` follows the last piece.
    """

    plan: Hash
    slice: Index
    # The place of the piece in the encoded result, in bytes.
    start: Annotated[int, Meta(ge=0, le=4 * MAX_PARAMETERS)]
    size: Annotated[int, Meta(ge=0, le=4 * MAX_PARAMETERS)]


class ResultProofHeader(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True):
    """Proves the pieces sent before with the `SliceResult` that their sender signed."""

    result: Signed
    # A proof has no payload.
    size: Annotated[int, Meta(ge=0, le=0)] = 0


class ReceiverAbilities(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a receiver understands besides whole parts, results and sums."""

    result_pieces: bool = False


BulkHeader = SliceHeader | ResultHeader | GroupSumHeader | ResultPieceHeader | ResultProofHeader
ABILITIES = frame(msgspec.msgpack.encode(ReceiverAbilities(result_pieces=True)))
# An array of a few booleans, in this release and in later ones.
ABILITIES_BYTES = 64
_decoder: msgspec.msgpack.Decoder[BulkHeader] = msgspec.msgpack.Decoder(BulkHeader)


class Parcel(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Something to send: a framed header and its payload."""

    header: bytes
    payload: memoryview
    # Whether only receivers of result pieces understand it.
    piecewise: bool = False
    # What other receivers get in its place; None for nothing.
    whole: Parcel | None = None


def read_header(data: bytes) -> BulkHeader:
    """Decode a header. Raises `PeerFault("malformed")`."""
    try:
        return _decoder.decode(data)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a bulk header: {error}") from None


def whole_only(whole: Parcel) -> Parcel:
    """What only receivers get that do not understand pieces."""
    return Parcel(header=b"", payload=memoryview(b""), piecewise=True, whole=whole)


def read_abilities(data: bytes | None) -> ReceiverAbilities:
    """Decode a receiver's abilities; it has none if it sent none."""
    return decode_as(ReceiverAbilities, data) if data is not None else ReceiverAbilities()


def parcel(header: BulkHeader, payload: memoryview, *, whole: Parcel | None = None) -> Parcel:
    """Frame a header and put it before its payload.

    `whole` goes to receivers that do not understand pieces.
    """
    return Parcel(
        header=frame(msgspec.msgpack.encode(header)),
        payload=payload,
        piecewise=isinstance(header, ResultPieceHeader | ResultProofHeader),
        whole=whole,
    )
