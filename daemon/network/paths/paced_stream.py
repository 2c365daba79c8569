"""Keeps bulk streams within the bandwidth that the node's owner allows, over all streams together.

A sender waits before each piece. A receiver reads later, and the transport tells the other side to
wait. What the streams measure of the link is then the allowed rate, so plans count with it.
"""

from __future__ import annotations

import trio

from protocol.identity import PeerId
from protocol.ports.byte_stream import ByteStream
from protocol.rate_limiter import RateLimiter

# A piece is a few TLS records: small beside a second of the slowest rate that the settings allow.
PIECE_BYTES = 64 << 10
# A second of the rate may pass at once, so that short messages do not wait.
BURST_S = 1.0


class Bandwidth:
    """What bulk streams may send and receive, in bits per second. 0 means no cap."""

    def __init__(self, up_bps: float = 0.0, down_bps: float = 0.0) -> None:
        self._up, self._down = up_bps, down_bps
        # Made in trio's time at the first use.
        self._sending: RateLimiter | None = None
        self._receiving: RateLimiter | None = None

    def paced(self, stream: ByteStream) -> ByteStream:
        """Return the stream within the caps."""
        return PacedStream(stream, self) if self._up or self._down else stream

    async def wait_to_send(self, size_bytes: int) -> None:
        """Wait until `size_bytes` may be sent."""
        if self._up:
            now = trio.current_time()
            self._sending = self._sending or _limiter(self._up, now)
            await trio.sleep(self._sending.owe(size_bytes, now))

    async def wait_to_receive(self, size_bytes: int) -> None:
        """Wait after `size_bytes` were received, until more may be."""
        if self._down and size_bytes:
            now = trio.current_time()
            self._receiving = self._receiving or _limiter(self._down, now)
            await trio.sleep(self._receiving.owe(size_bytes, now))


def _limiter(rate_bps: float, now: float) -> RateLimiter:
    return RateLimiter(per_s=rate_bps / 8, burst=BURST_S * rate_bps / 8, now=now)


class PacedStream:
    """A `ByteStream` within a bandwidth."""

    def __init__(self, stream: ByteStream, bandwidth: Bandwidth) -> None:
        self._stream, self._bandwidth = stream, bandwidth

    @property
    def peer(self) -> PeerId:
        return self._stream.peer

    async def send_all(self, data: bytes | memoryview) -> None:
        left = memoryview(data).cast("B")
        if not left:
            await self._stream.send_all(left)
        while left:
            piece, left = left[:PIECE_BYTES], left[PIECE_BYTES:]
            await self._bandwidth.wait_to_send(len(piece))
            await self._stream.send_all(piece)

    async def receive_some(self, max_bytes: int) -> bytes:
        data = await self._stream.receive_some(min(max_bytes, PIECE_BYTES))
        await self._bandwidth.wait_to_receive(len(data))
        return data

    async def receive_into(self, target: memoryview) -> int:
        count = await self._stream.receive_into(target[:PIECE_BYTES])
        await self._bandwidth.wait_to_receive(count)
        return count

    def unsent(self) -> int:
        return self._stream.unsent()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()
