"""Defines the headers of the bulk protocol, which announce the bytes that follow.

Each parcel on a bulk stream is one framed header and its payload. The class name of a header is
its tag on the wire.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from daemon.swarm.frames import frame
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


BulkHeader = SliceHeader | ResultHeader | GroupSumHeader
_decoder: msgspec.msgpack.Decoder[BulkHeader] = msgspec.msgpack.Decoder(BulkHeader)


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """Something to send: a framed header and its payload."""

    header: bytes
    payload: memoryview


def read_header(data: bytes) -> BulkHeader:
    """Decode a header. Raises `PeerFault("malformed")`."""
    try:
        return _decoder.decode(data)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a bulk header: {error}") from None


def parcel(header: BulkHeader, payload: memoryview) -> Parcel:
    """Frame a header and put it before its payload."""
    return Parcel(header=frame(msgspec.msgpack.encode(header)), payload=payload)
