"""Certificates from a peer: a node that lags or joins asks for the chain and verifies every link.

One stream carries one request and one answer: a `ChainRequest`, then a `ChainReply` frame and a
frame for each record, oldest first. A record holds the certificates by which a node advanced at
once: mostly one; with a merge the other branch's certificates and then the merge.

Neither side holds a whole answer. The asking side reads one certificate after the other and gives
each to its lineage before it reads the next. The answering side serves few peers at a time, for a
limited time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import trio
from msgspec.structs import replace

from daemon.swarm.frames import FrameReader, decode_as, frame
from daemon.swarm.reply_limiter import ReplyLimiter
from protocol.digest import Digest
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.messages.base import MAX_MESSAGE_BYTES, UNREADABLE, Hash, Natural
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network

PROTOCOL = "/hypergpu/chain/1"
# A round of a demo makes 3 KB, so an answer has less than 1 MB.
CERTIFICATES_PER_REQUEST = 256
REQUEST_BYTES = 256
# A merge after 4,000 rounds apart.
MAX_RECORD_BYTES = 16 << 20
# The most that we read of one answer: 256 rounds of 64 members are 25 MB. The next request asks for
# the rest.
REPLY_BYTES = 64 << 20
# The most that we send in one answer, its first record aside. A peer that wants more asks again.
SENT_BYTES = 1 << 20
# Answers under way, to all peers and to one.
SERVED_AT_ONCE, SERVED_TO_PEER = 32, 2
# The time for one request and its answer.
ANSWER_S = 20.0


class ChainRequest(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    run: Hash
    # The number of the first certificate wanted.
    first: Natural


class ChainReply(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The head of an answer.

    `age_s` says for how long the answering node has trained from its tip, so that a joiner ends its
    first round with the others.
    """

    tip: Hash
    number: Natural
    age_s: float
    count: Natural


_records = msgspec.msgpack.Decoder(list[bytes])


AnswerChain = Callable[[int, int], Awaitable[tuple[ChainReply, list[bytes]]]]
"""Gives the reply to (first, limit)."""


def pack_record(certificates: list[bytes]) -> bytes:
    """The certificates of one advance of a lineage, as they are stored and sent."""
    return msgspec.msgpack.encode(certificates)


def unpack_record(record: bytes) -> list[bytes]:
    """The certificates of a record. Raises `PeerFault("malformed")`."""
    try:
        return _records.decode(record)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a record of certificates: {error}") from None


def serve_chain(network: Network, run: Digest, answer: AnswerChain) -> None:
    """Answer requests for this run's certificates."""

    limiter = ReplyLimiter(SERVED_TO_PEER, SERVED_AT_ONCE, network.source_of)

    async def handle(stream: ByteStream) -> None:
        with trio.move_on_after(ANSWER_S):
            request = decode_as(ChainRequest, await FrameReader(stream).expect_frame(REQUEST_BYTES))
            if request.run != run:
                raise PeerFault("other_run", f"a request for run {request.run.hex()[:12]}")
            async with limiter.slot(stream.peer):
                reply, records = await answer(request.first, CERTIFICATES_PER_REQUEST)
                records = _fitting(records)
                reply = replace(reply, count=len(records))
                await stream.send_all(frame(msgspec.msgpack.encode(reply)))
                for record in records:
                    await stream.send_all(frame(record))
                await stream.send_eof()
            return
        raise PeerFault("timeout", f"certificates were not read within {ANSWER_S:g} s")

    network.serve(PROTOCOL, handle)


def _fitting(records: list[bytes]) -> list[bytes]:
    """The first records, up to the size of one answer."""
    size = 0
    for count, record in enumerate(records):
        size += len(record)
        if count and size > SENT_BYTES:
            return records[:count]
    return records


Accept = Callable[[bytes], Awaitable[bool]]
"""Accepts one certificate. False when no more of this answer are wanted."""


async def read_chain(
    network: Network, peer: PeerId, run: Digest, first: int, accept: Accept
) -> ChainReply:
    """Give a peer's certificates from number `first` on to `accept`, one by one as they arrive.

    Raises:
        Unreachable: When the peer does not answer in time.
        PeerFault: When its answer breaks the protocol.
    """
    with trio.move_on_after(ANSWER_S):
        stream = await network.open_stream(peer, PROTOCOL)
        try:
            await stream.send_all(frame(msgspec.msgpack.encode(ChainRequest(run=run, first=first))))
            reader = FrameReader(stream)
            reply = decode_as(ChainReply, await reader.expect_frame(REQUEST_BYTES))
            if reply.count > CERTIFICATES_PER_REQUEST:
                raise PeerFault("oversized", f"{reply.count} certificates in one answer")
            left = REPLY_BYTES
            for _ in range(reply.count):
                size = await reader.begin_frame(MAX_RECORD_BYTES)
                left -= size
                if left < 0 or not await _read_record(reader, size, accept):
                    break
            return reply
        finally:
            await stream.aclose()
    raise Unreachable(f"no certificates within {ANSWER_S:g} s")


async def _read_record(reader: FrameReader, size: int, accept: Accept) -> bool:
    """Read one record of `size` bytes (`pack_record`), and hold one certificate at a time.

    Returns:
        Whether `accept` wants more.
    """
    count, left = await _header(reader, size, _ARRAYS)
    for _ in range(count):
        length, left = await _header(reader, left, _BINARIES)
        if length > min(left, MAX_MESSAGE_BYTES):
            raise PeerFault("oversized", f"a certificate of {length} bytes in a record")
        left -= length
        if not await accept(await reader.read_exactly(length)):
            return False
    if left:
        raise PeerFault("malformed", f"a record with {left} bytes behind its certificates")
    return True


# How many bytes of length follow msgpack's markers
# (https://github.com/msgpack/msgpack/blob/master/spec.md).
_ARRAYS, _BINARIES = {0xDC: 2, 0xDD: 4}, {0xC4: 1, 0xC5: 2, 0xC6: 4}


async def _header(reader: FrameReader, left: int, markers: dict[int, int]) -> tuple[int, int]:
    """A msgpack header: its count, and how many of `left` bytes remain behind it.

    Raises:
        PeerFault: "malformed".
    """
    if left < 1:
        raise PeerFault("malformed", "a record that ends in its middle")
    marker = (await reader.read_exactly(1))[0]
    if markers is _ARRAYS and 0x90 <= marker <= 0x9F:
        return marker & 0x0F, left - 1
    length = markers.get(marker)
    if length is None or left < 1 + length:
        raise PeerFault("malformed", "not a record of certificates")
    return int.from_bytes(await reader.read_exactly(length), "big"), left - 1 - length
