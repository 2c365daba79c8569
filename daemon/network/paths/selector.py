"""Which way bulk streams go: direct TCP with TLS where there is a path, else the same bytes over a
stream of the libp2p connection.

A home router lets its node call out and lets nobody in: between it and others there is a libp2p
connection, which it opened, and no second one in the other direction. Who is at the other end is
known by Noise then, and by its key; it is let in only when its endpoint was admitted, as for TLS.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.ports.byte_stream import ByteStream
from protocol.ports.endpoint import Endpoint

# Until a direct path is looked for again: looking costs a connect's timeout for each address.
AGAIN_S = 120.0
# Behind a bulk protocol's name, where libp2p carries it.
OVER_LIBP2P = "/stream/2"
# The first byte back, as of the bulk plane: a stream that was negotiated is not one that was let
# in.
LET_IN = b"\x00"
LET_IN_S = 5.0  # until it comes, as there
# Peers to which there was no path: four times as many as certificates are admitted at once.
MAX_KNOWN = 4096


class NoPath(Unreachable):
    """No TCP connection came about at any of the endpoint's addresses."""


async def let_in(stream: ByteStream) -> None:
    """Until the other side has let us in. Raises `Unreachable`, and then the stream is closed."""
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


class PathSelector:
    """Remembers to whom there is no direct path.

    `direct` raises `NoPath` for that and `Unreachable` for all else.
    """

    def __init__(
        self,
        direct: Callable[[Endpoint, str], Awaitable[ByteStream]],
        over_libp2p: Callable[[PeerId, str], Awaitable[ByteStream]],
    ) -> None:
        self._direct, self._over_libp2p = direct, over_libp2p
        self._again: dict[PeerId, float] = {}
        self._came: set[PeerId] = set()

    def by_stream(self, peer: PeerId) -> bool:
        """Whether bulk bytes to or from this peer go over libp2p."""
        return peer in self._again or peer in self._came

    def came(self, peer: PeerId, *, direct: bool) -> None:
        """The peer opened a bulk stream to us."""
        if direct:
            self._came.discard(peer)
        elif len(self._came) < MAX_KNOWN:
            self._came.add(peer)

    async def open(self, endpoint: Endpoint, protocol: str) -> ByteStream:
        """Raises `Unreachable`."""
        peer, why = endpoint.peer, ""
        if trio.current_time() >= self._again.get(peer, 0.0):
            try:
                stream = await self._direct(endpoint, protocol)
            except NoPath as none:
                why = f"{none}; "
            else:
                self._again.pop(peer, None)
                return stream
        try:
            stream = await self._over_libp2p(peer, protocol)
        except Unreachable as error:
            raise Unreachable(f"{why}over libp2p: {error}") from error
        if why:
            if len(self._again) >= MAX_KNOWN:
                del self._again[next(iter(self._again))]
            self._again[peer] = trio.current_time() + AGAIN_S
        return stream
