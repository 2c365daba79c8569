"""Bulk bytes over a stream of the libp2p connection, where no direct path exists.

The peer is known by Noise and by its key. It is let in only when its endpoint was admitted, as
over TLS.
"""

from __future__ import annotations

import trio

from daemon.network.paths.path import NoPath, TransportContext
from daemon.network.tcp import StreamListener
from daemon.network.tcp_info import SegmentCounts
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.network.reachability import PathKind
from protocol.ports.byte_stream import ByteStream, StreamHandler
from protocol.ports.endpoint import Endpoint

# Follows a bulk protocol's name where libp2p carries the protocol.
SUFFIX = "/stream/2"
# The first byte back. Without it, a client could not tell that its negotiated stream was let in.
LET_IN = b"\x00"
LET_IN_S = 5.0


class LibP2PTransport:
    """Carries bulk streams over the control connection."""

    kind: PathKind = "libp2p"

    def __init__(self, context: TransportContext) -> None:
        self._context = context

    async def open(self, endpoint: Endpoint, protocol: str) -> ByteStream:
        """A bulk stream. Raises `NoPath`: this transport needs only a connection to the peer."""
        try:
            stream = await self._context.open_stream(endpoint.peer, protocol + SUFFIX)
            await wait_until_let_in(stream)
        except Unreachable as error:
            raise NoPath(str(error)) from error
        return stream

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        async def handle(stream: ByteStream) -> None:
            if stream.peer not in self._context.admitted:
                raise PeerFault(
                    "tls", "a bulk stream over libp2p from a peer whose endpoint was not admitted"
                )
            await stream.send_all(LET_IN)
            await handler(stream)

        self._context.serve_stream(protocol + SUFFIX, handle)

    def segments(self, peer: PeerId) -> SegmentCounts:
        """None of its own: the connection's segments are counted with the connection."""
        return SegmentCounts()

    async def listen(self, listener: StreamListener) -> None:
        """Nothing to accept: the streams come over the control connection."""

    async def cut(self) -> None:
        """Nothing to cut: the streams end with the control connection."""
        await trio.lowlevel.checkpoint()


async def wait_until_let_in(stream: ByteStream) -> None:
    """Wait for the other side's first byte.

    Raises:
        Unreachable: When the other side does not let us in. The stream is then closed.
    """
    answer = b""
    try:
        with trio.fail_after(LET_IN_S):
            answer = await stream.receive_some(1)
        if answer != LET_IN:
            raise Unreachable(f"{stream.peer} closed the stream")
    except trio.TooSlowError:
        raise Unreachable(f"{stream.peer} did not answer within {LET_IN_S:.0f} s") from None
    finally:
        if answer != LET_IN:
            await stream.aclose()
