"""Bulk streams within the bandwidth that a node's owner allows, in virtual time."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from daemon.network.paths.paced_stream import BURST_S, PIECE_BYTES, Bandwidth

RATE_BPS = 8_000_000.0
RATE_BYTES = 1_000_000


class _Pipe:
    """A stream that carries everything at once."""

    peer = "12D3KooWpeer"

    def __init__(self, given: bytes = b"") -> None:
        self.sent, self.given = bytearray(), given
        self.pieces: list[int] = []

    async def send_all(self, data: bytes | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.pieces.append(len(data))
        self.sent += data

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        data, self.given = self.given[:max_bytes], self.given[max_bytes:]
        return data

    async def receive_into(self, target: memoryview) -> int:
        data = await self.receive_some(len(target))
        target[: len(data)] = data
        return len(data)

    def unsent(self) -> int:
        return 0

    async def send_eof(self) -> None: ...

    async def aclose(self) -> None: ...


def test_bandwidth_without_caps_leaves_streams_alone() -> None:
    pipe = _Pipe()
    assert Bandwidth().paced(pipe) is pipe
    assert Bandwidth(up_bps=1.0).paced(pipe) is not pipe


async def test_paced_streams_send_at_the_rate_together(autojump_clock: MockClock) -> None:
    bandwidth, pipes = Bandwidth(up_bps=RATE_BPS), [_Pipe(), _Pipe()]
    data = bytes(range(256)) * (5 * RATE_BYTES // 256)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for pipe in pipes:
            nursery.start_soon(bandwidth.paced(pipe).send_all, data)
    took = trio.current_time() - began
    assert 10.0 - BURST_S - 0.2 <= took <= 10.0
    assert all(bytes(pipe.sent) == data and max(pipe.pieces) <= PIECE_BYTES for pipe in pipes)


async def test_paced_streams_receive_at_the_rate(autojump_clock: MockClock) -> None:
    data = bytes(5 * RATE_BYTES)
    stream = Bandwidth(down_bps=RATE_BPS).paced(_Pipe(data))
    began, received, target = trio.current_time(), 0, memoryview(bytearray(RATE_BYTES))
    while count := await stream.receive_into(target):
        received += count
    assert received == len(data)
    assert 5.0 - BURST_S - 0.2 <= trio.current_time() - began <= 5.0
    before = trio.current_time()
    await stream.send_all(data)
    assert trio.current_time() == before, "the other direction has no cap"


async def test_paced_stream_sends_nothing_and_numbers(autojump_clock: MockClock) -> None:
    pipe = _Pipe()
    stream = Bandwidth(up_bps=RATE_BPS).paced(pipe)
    await stream.send_all(b"")
    await stream.send_all(memoryview(b"abcd").cast("I"))
    assert bytes(pipe.sent) == b"abcd"
