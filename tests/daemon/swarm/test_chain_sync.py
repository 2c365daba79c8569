"""Certificates from a peer are read one by one, bounded, and served to a few at a time."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Awaitable, Callable

import msgspec
import pytest
import trio

from daemon.swarm.chain_sync import (
    CERTIFICATES_PER_REQUEST,
    MAX_RECORD_BYTES,
    PROTOCOL,
    REQUEST_BYTES,
    SENT_BYTES,
    SERVED_TO_PEER,
    ChainReply,
    pack_record,
    read_chain,
    serve_chain,
)
from daemon.swarm.frames import FrameReader, frame
from daemon.swarm.reply_limiter import ReplyLimiter
from protocol.errors import PeerFault
from protocol.messages.base import MAX_MESSAGE_BYTES
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Source
from simulator.fakes.clock import run_virtual
from simulator.fakes.network import FakeNetwork
from simulator.fakes.swarm import FakeSwarm

RUN = b"r" * 32
MEMBER = Source(prefix="10.0", matters=True)


def reply(count: int) -> ChainReply:
    return ChainReply(tip=RUN, number=1, age_s=0.0, count=count)


def played(
    story: Callable[[FakeNetwork, FakeNetwork], Awaitable[None]],
    serve: Callable[[FakeNetwork], None],
) -> None:
    """Play `story` with the side that asks and the side that answers."""

    async def main() -> None:
        swarm = FakeSwarm(random.Random(1))
        here, there = swarm.network(b"s" * 32), swarm.network(b"l" * 32)
        serve(there)
        async with swarm.running(), here.running(), there.running():
            await trio.sleep(1.0)
            await story(here, there)

    run_virtual(main)


def answering(*records: bytes, count: int | None = None) -> Callable[[FakeNetwork], None]:
    """Serve these records, whatever the request."""

    async def answer(stream: ByteStream) -> None:
        await FrameReader(stream).expect_frame(REQUEST_BYTES)
        await stream.send_all(
            frame(msgspec.msgpack.encode(reply(len(records) if count is None else count)))
        )
        for record in records:
            await stream.send_all(frame(record))
        await stream.send_eof()

    return lambda network: network.serve(PROTOCOL, answer)


async def read_all(here: FakeNetwork, there: FakeNetwork, most: int = 1 << 20) -> list[bytes]:
    got: list[bytes] = []

    async def accept(raw: bytes) -> bool:
        got.append(raw)
        return len(got) < most

    await read_chain(here, there.peer, RUN, 1, accept)
    return got


@pytest.mark.parametrize("count", [0, 1, 15, 16, 70_000])
def test_read_chain_gives_every_certificate_of_every_record(count: int) -> None:
    certificates = [bytes([n % 256]) * (n % 300) for n in range(count)]

    async def story(here: FakeNetwork, there: FakeNetwork) -> None:
        assert await read_all(here, there) == [*certificates, b"last"]

    played(story, answering(pack_record(certificates), pack_record([b"last"])))


def test_read_chain_never_holds_a_whole_answer() -> None:
    certificate = bytes(200_000)
    record = pack_record([certificate] * 70)
    peak = 0

    async def story(here: FakeNetwork, there: FakeNetwork) -> None:
        nonlocal peak

        async def accept(_raw: bytes) -> bool:
            return True

        tracemalloc.start()
        await read_chain(here, there.peer, RUN, 1, accept)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    played(story, answering(*[record] * 4))
    assert peak < 2 * len(record), (
        "an answer has 56 MB; the side that answers holds a record of 14 MB in this process"
    )


def test_read_chain_ends_when_the_caller_wants_no_more() -> None:
    async def story(here: FakeNetwork, there: FakeNetwork) -> None:
        assert await read_all(here, there, most=3) == [b"a", b"a", b"a"]

    played(story, answering(pack_record([b"a"] * 1000), b"not a record"))


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\x91",
        b"\x91\xc4\x05abc",
        b"\xdd\xff\xff\xff\xff",
        b"\x91\xa1a",
        b"\x80",
        b"\x91\xc4\x01abc",
        b"\xdc\x00",
        pack_record([bytes(MAX_MESSAGE_BYTES + 1)]),
    ],
)
def test_read_chain_refuses_a_malformed_record(record: bytes) -> None:
    async def story(here: FakeNetwork, there: FakeNetwork) -> None:
        with pytest.raises(PeerFault):
            await read_all(here, there)

    played(story, answering(record))


def test_read_chain_refuses_more_than_an_answer_may_hold() -> None:
    async def story(here: FakeNetwork, there: FakeNetwork) -> None:
        with pytest.raises(PeerFault, match="certificates in one answer"):
            await read_all(here, there)

    played(story, answering(count=CERTIFICATES_PER_REQUEST + 1))
    assert MAX_RECORD_BYTES > MAX_MESSAGE_BYTES


def test_serve_chain_answers_no_more_than_fits() -> None:
    records = [pack_record([bytes(100_000)])] * 50

    async def answer(_first: int, _limit: int) -> tuple[ChainReply, list[bytes]]:
        return reply(len(records)), records

    async def story(here: FakeNetwork, there: FakeNetwork) -> None:
        assert len(await read_all(here, there)) == SENT_BYTES // len(records[0])

    def serve(network: FakeNetwork) -> None:
        serve_chain(network, RUN, answer)

    played(story, serve)


def test_reply_limiter_bounds_the_slots_of_each_peer_and_of_all() -> None:
    most: dict[str, int] = {}

    async def main() -> None:
        limiter, held = (
            ReplyLimiter(SERVED_TO_PEER, 3, lambda _: MEMBER),
            dict.fromkeys(("a", "b"), 0),
        )

        async def one(peer: str) -> None:
            async with limiter.slot(peer):
                held[peer] += 1
                most[peer] = max(most.get(peer, 0), held[peer])
                most["all"] = max(most.get("all", 0), limiter.count)
                await trio.sleep(1.0)
                held[peer] -= 1

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(one, "a")
                nursery.start_soon(one, "b")
        assert limiter.count == 0

    run_virtual(main)
    assert most == {"a": SERVED_TO_PEER, "b": SERVED_TO_PEER, "all": 3} or most["all"] == 3
