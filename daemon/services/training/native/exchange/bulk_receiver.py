"""Receives parcels over the bulk protocol.

The receiver reads a header. It reads the payload only when the exchange of that header exists and
wants the payload. A sender that is early waits; a sender of unwanted bytes loses its stream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from daemon.services.training.native.exchange.buffers import Buffers
from daemon.services.training.native.exchange.bulk_headers import (
    ABILITIES,
    HEADER_BYTES,
    PROTOCOL,
    BulkHeader,
    read_header,
)
from daemon.services.training.native.exchange.link_meter import LinkMeter
from daemon.swarm.frames import FrameReader
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network


class ExpectedParcel:
    """One parcel that the current exchange wants: its size, its memory, and its receiver."""

    def __init__(
        self,
        size: int,
        finish: Callable[[memoryview], Awaitable[None]],
        memory: Callable[[], memoryview] | None = None,
        progress: Callable[[memoryview, int], None] | None = None,
    ) -> None:
        """Describe a parcel. Without `memory`, the payload goes into a new buffer.

        `memory` returns `size` bytes and is called when the payload is about to arrive.
        `progress(payload, size_bytes)` is called with the bytes that have arrived so far.
        """
        self.size = size
        self.finish = finish
        self.memory = memory
        self.progress = progress


async def discard(data: memoryview) -> None:
    """Drop a payload that is not needed any more."""


AcceptParcel = Callable[[PeerId, BulkHeader], Awaitable[ExpectedParcel]]
"""Wait until the exchange of a header exists. Raises `PeerFault` for an unwanted parcel."""


def serve_bulk(
    network: Network,
    accept: AcceptParcel,
    refuse: Callable[[str, PeerId, str], None],
    buffers: Buffers,
) -> LinkMeter:
    """Receive what peers send on bulk streams into `buffers`.

    A refused parcel counts against its sender and closes the stream.

    Returns:
        The meter of all these streams.
    """
    meter = LinkMeter()

    async def receive(stream: ByteStream) -> None:
        try:
            await read(stream)
        except PeerFault as fault:
            refuse(fault.reason, stream.peer, str(fault))
            # The network closes the stream and need not count the fault again.
            raise Unreachable(f"refused: {fault}") from None

    async def read(stream: ByteStream) -> None:
        await stream.send_all(ABILITIES)
        reader = FrameReader(stream)
        while (data := await reader.next_frame(HEADER_BYTES)) is not None:
            await read_parcel(stream.peer, reader, read_header(data))

    # This is a function of its own: a stream that waits for the next header must not keep a
    # reference to the last parcel.
    async def read_parcel(peer: PeerId, reader: FrameReader, header: BulkHeader) -> None:
        expected = await accept(peer, header)
        if header.size != expected.size:
            raise PeerFault(
                "malformed",
                f"the header announces {header.size} bytes; the plan has {expected.size}",
            )
        data = buffers.acquire(expected.size) if expected.memory is None else expected.memory()
        received = 0
        meter.begin()
        try:
            await reader.read_into(
                data, partial(expected.progress, data) if expected.progress is not None else None
            )
            received = expected.size
        finally:
            meter.end(received)
        await expected.finish(data)

    network.serve_bulk(PROTOCOL, receive)
    return meter
