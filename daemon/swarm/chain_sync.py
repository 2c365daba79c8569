"""Certificates from a peer: whoever lags or joins asks for the chain, and verifies every link of it
itself.

One request, one answer, one stream: `ChainRequest`, then a `ChainReply` frame and a frame for each
record, oldest first. A record is what a node moved along in one step: mostly one certificate; with
a merge the other branch's certificates and then the merge.

Nobody holds a whole answer. The asking side takes one certificate after the other out of the stream
and gives it to its lineage before the next one is read. The answering side serves few at a time,
for a limited time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Annotated

import msgspec
import trio
from msgspec import Meta
from msgspec.structs import replace

from daemon.swarm.frames import FrameReader, decode_as, frame
from daemon.swarm.messenger import Refuse
from daemon.swarm.reply_limiter import ReplyLimiter
from protocol.digest import SHOWN_DIGITS, Digest
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId, short
from protocol.journal import JournalEvent, Warned
from protocol.messages.base import MAX_MESSAGE_BYTES, UNREADABLE, Hash, Natural
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network
from protocol.rules.versions import FIRST_RULES, KNOWN_RULES, MAX_RULES, check_rules, in_words
from protocol.run.manifest import MAX_MANIFEST_BYTES, SignedManifest

PROTOCOL = "/hypergpu/chain/1"
MANIFEST_PROTOCOL = "/hypergpu/manifest/2"
# Of programs that know the first rules alone, and say nothing of themselves.
FIRST_MANIFEST_PROTOCOL = "/hypergpu/manifest/1"
# A round of a demo makes 3 KB: under 1 MB an answer.
CERTIFICATES_PER_REQUEST = 256
REQUEST_BYTES = 256
MAX_RECORD_BYTES = 16 << 20  # a merge after 4,000 rounds apart
# Between two warnings of programs that do not know the rules: anybody can ask again and again.
RULES_SILENCE_S = 60.0
MOST_VERSIONS = 32  # of the rules that one program knows
# Of one answer: 256 rounds of 64 members are 25 MB. What is beyond is asked for again from there.
REPLY_BYTES = 64 << 20
# Of one answer that we give, its first record aside: who wants more asks again.
SENT_BYTES = 1 << 20
# Answers on their way, to all peers and to one.
SERVED_AT_ONCE, SERVED_TO_PEER = 32, 2
# For one request: a peer that has nothing to say for this long is asked no more.
ANSWER_S = 20.0


class ChainRequest(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    run: Hash
    first: Natural  # number of the first certificate wanted


class ChainReply(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """`age_s` is for how long the answering node has trained from its tip: a joiner ends its first
    round with the others.
    """

    tip: Hash
    number: Natural
    age_s: float
    count: Natural


_records = msgspec.msgpack.Decoder(list[bytes])


class ManifestRequest(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a program that would join says first: which versions of the rules it knows."""

    rules: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=MAX_RULES)], ...], Meta(max_length=MOST_VERSIONS)
    ]


Answer = Callable[[int, int], Awaitable[tuple[ChainReply, list[bytes]]]]
"""Gives the reply to (first, limit)."""


def pack_record(certificates: list[bytes]) -> bytes:
    """One step of a lineage as it is stored and sent."""
    return msgspec.msgpack.encode(certificates)


def unpack_record(record: bytes) -> list[bytes]:
    """Raises `PeerFault("malformed")`."""
    try:
        return _records.decode(record)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a record of certificates: {error}") from None


def serve_chain(network: Network, run: Digest, answer: Answer) -> None:
    """Answer requests for this run's certificates."""

    turns = ReplyLimiter(SERVED_TO_PEER, SERVED_AT_ONCE, network.source_of)

    async def take(stream: ByteStream) -> None:
        with trio.move_on_after(ANSWER_S):
            request = decode_as(ChainRequest, await FrameReader(stream).expect_frame(REQUEST_BYTES))
            if request.run != run:
                raise PeerFault("other_run", f"a request for run {request.run.hex()[:12]}")
            async with turns.turn(stream.peer):
                reply, records = await answer(request.first, CERTIFICATES_PER_REQUEST)
                records = _fitting(records)
                reply = replace(reply, count=len(records))
                await stream.send_all(frame(msgspec.msgpack.encode(reply)))
                for record in records:
                    await stream.send_all(frame(record))
                await stream.send_eof()
            return
        raise PeerFault("timeout", f"certificates were not taken within {ANSWER_S:g} s")

    network.serve(PROTOCOL, take)


def _fitting(records: list[bytes]) -> list[bytes]:
    """The first records, as many as one answer may hold."""
    size = 0
    for count, record in enumerate(records):
        size += len(record)
        if count and size > SENT_BYTES:
            return records[:count]
    return records


Take = Callable[[bytes], Awaitable[bool]]
"""Takes one certificate; False when no more of this answer are wanted."""


async def read_chain(
    network: Network, peer: PeerId, run: Digest, first: int, take: Take
) -> ChainReply:
    """Give a peer's certificates from number `first` on to `take`, one by one as they come.

    Raises `Unreachable` or `PeerFault`.
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
                if left < 0 or not await _read_record(reader, size, take):
                    break
            return reply
        finally:
            await stream.aclose()
    raise Unreachable(f"no certificates within {ANSWER_S:g} s")


async def _read_record(reader: FrameReader, size: int, take: Take) -> bool:
    """The certificates of one record of `size` bytes (`pack_record`), without ever holding two.

    False when `take` wants no more.
    """
    count, left = await _header(reader, size, _ARRAYS)
    for _ in range(count):
        length, left = await _header(reader, left, _BINARIES)
        if length > min(left, MAX_MESSAGE_BYTES):
            raise PeerFault("oversized", f"a certificate of {length} bytes in a record")
        left -= length
        if not await take(await reader.read_exactly(length)):
            return False
    if left:
        raise PeerFault("malformed", f"a record with {left} bytes behind its certificates")
    return True


_ARRAYS, _BINARIES = {0xDC: 2, 0xDD: 4}, {0xC4: 1, 0xC5: 2, 0xC6: 4}
"""How many bytes of length follow msgpack's markers (https://github.com/msgpack/msgpack/blob/master/spec.md)."""


async def _header(reader: FrameReader, left: int, markers: dict[int, int]) -> tuple[int, int]:
    """A msgpack header: what it counts, and how much of `left` is left behind it.

    Raises `PeerFault("malformed")`.
    """
    if left < 1:
        raise PeerFault("malformed", "a record that ends inside")
    marker = (await reader.read_exactly(1))[0]
    if markers is _ARRAYS and 0x90 <= marker <= 0x9F:
        return marker & 0x0F, left - 1
    length = markers.get(marker)
    if length is None or left < 1 + length:
        raise PeerFault("malformed", "not a record of certificates")
    return int.from_bytes(await reader.read_exactly(length), "big"), left - 1 - length


def serve_manifest(
    network: Network,
    manifest: SignedManifest,
    refuse: Refuse,
    record: Callable[[JournalEvent], None],
) -> None:
    """Hand the run's manifest to anyone who asks: it is all that a newcomer needs to know.

    A program that does not know the run's rules gets the manifest as well, and refuses by itself.
    `refuse` hears of each such program, and `record` of one a minute, so that the people on both
    sides read why it did not join.
    """
    rules = manifest.open().rules
    told_s = -RULES_SILENCE_S

    async def answer(stream: ByteStream, known: tuple[int, ...]) -> None:
        nonlocal told_s
        if rules not in known:
            said = f"it asked to join; it knows rules {in_words(known)}, and this run uses rules {rules}"
            refuse("rules", stream.peer, said)
            if trio.current_time() - told_s >= RULES_SILENCE_S:
                told_s = trio.current_time()
                record(Warned(code="RULES", message=f"{short(stream.peer)} did not join: {said}"))
        await stream.send_all(frame(msgspec.msgpack.encode(manifest)))
        await stream.send_eof()

    async def take(stream: ByteStream) -> None:
        request = decode_as(ManifestRequest, await FrameReader(stream).expect_frame(REQUEST_BYTES))
        await answer(stream, request.rules)

    async def take_first(stream: ByteStream) -> None:
        await answer(stream, (FIRST_RULES,))

    network.serve(MANIFEST_PROTOCOL, take)
    network.serve(FIRST_MANIFEST_PROTOCOL, take_first)


async def fetch_manifest(
    network: Network, peer: PeerId, known: Collection[int] = KNOWN_RULES
) -> SignedManifest:
    """The manifest of the run a peer is in.

    Raises `Unreachable` or `PeerFault`; the caller opens and so checks it.

    `known` are the versions of the rules that the caller takes part in; the peer hears of them. A
    peer that knows the first rules alone is asked in its own way: its manifest says why it cannot
    be joined.
    """
    try:
        return await _fetch_manifest(
            network, peer, MANIFEST_PROTOCOL, ManifestRequest(rules=tuple(sorted(known)))
        )
    except Unreachable as refused:
        try:
            return await _fetch_manifest(network, peer, FIRST_MANIFEST_PROTOCOL, None)
        except Unreachable:
            raise refused from None


async def fetch_run(
    network: Network, peer: PeerId, known: Collection[int] = KNOWN_RULES
) -> SignedManifest:
    """As `fetch_manifest`, for a program that would take part: opened, and of rules that it knows.

    Raises `UserError("MANIFEST")` and `UserError("RULES")` besides.
    """
    signed = await fetch_manifest(network, peer, known)
    check_rules(signed.open().rules, signed.run.hex()[:SHOWN_DIGITS], known, of_home=False)
    return signed


async def _fetch_manifest(
    network: Network, peer: PeerId, protocol: str, request: ManifestRequest | None
) -> SignedManifest:
    with trio.move_on_after(ANSWER_S):
        stream = await network.open_stream(peer, protocol)
        try:
            if request is not None:
                await stream.send_all(frame(msgspec.msgpack.encode(request)))
            return decode_as(
                SignedManifest, await FrameReader(stream).expect_frame(MAX_MANIFEST_BYTES + 256)
            )
        finally:
            await stream.aclose()
    raise Unreachable(f"no manifest within {ANSWER_S:g} s")
