"""Chooses the path that a peer's bulk bytes take.

A home router lets its node call out and lets nobody in. Between such a node and others there is
one libp2p connection, which the node opened, and no second connection in the other direction. So
the transports of `TRANSPORTS` are tried in order, and a peer stays on the one that worked until a
better one is due to be tried again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec
import trio

from daemon.network.paths.direct import DirectTransport
from daemon.network.paths.libp2p import LibP2PTransport
from daemon.network.paths.path import NoPath, Path, PathKind, Transport, TransportContext
from daemon.network.tcp import StreamListener
from daemon.network.tcp_info import SegmentCounts
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.ports.byte_stream import ByteStream, StreamHandler
from protocol.ports.endpoint import Endpoint

# The best first. A new kind of path is one file and one line here.
TRANSPORTS: tuple[Callable[[TransportContext], Transport], ...] = (
    DirectTransport,
    LibP2PTransport,
)

# A better path is tried again after this time: a try costs a connect timeout per address.
RETRY_S = 120.0
# Peers whose path is remembered: four times as many as are admitted at once.
MAX_KNOWN = 4096


def make_transports(context: TransportContext) -> tuple[Transport, ...]:
    """One transport of each kind, the best first."""
    return tuple(make(context) for make in TRANSPORTS)


class _Fallback(msgspec.Struct, frozen=True):
    """The path of a peer to which better ones do not lead."""

    kind: PathKind
    retry_at: float
    reason: str


class PathSelector:
    """Opens bulk streams over the best path to each peer, and remembers which path that is."""

    def __init__(self, transports: Sequence[Transport]) -> None:
        """`transports` are the kinds of path, the best first."""
        self._transports = tuple(transports)
        self._kinds = [transport.kind for transport in transports]
        self._fallbacks: dict[PeerId, _Fallback] = {}
        # Peers whose own streams come in over another path than the best.
        self._incoming: dict[PeerId, PathKind] = {}

    def path_to(self, peer: PeerId) -> Path:
        """The path that bulk bytes to and from `peer` take now."""
        counted = sum((transport.segments(peer) for transport in self._transports), SegmentCounts())
        if (fallback := self._fallbacks.get(peer)) is not None:
            kind, reason = fallback.kind, fallback.reason
        elif (incoming := self._incoming.get(peer)) is not None:
            kind, reason = incoming, f"the peer opens its streams over {incoming}"
        else:
            kind, reason = self._kinds[0], f"no {self._kinds[0]} attempt has failed"
        return Path(peer=peer, kind=kind, reason=reason, segments=counted)

    async def open(self, endpoint: Endpoint, protocol: str) -> ByteStream:
        """A bulk stream over the best path. Raises `Unreachable`."""
        peer, failures = endpoint.peer, ""
        for transport in self._transports[self._first_to_try(peer) : -1]:
            try:
                stream = await transport.open(endpoint, protocol)
            except NoPath as error:
                failures += f"{error}; "
            else:
                self._remember(peer, transport.kind, failures)
                return stream
        last = self._transports[-1]
        try:
            stream = await last.open(endpoint, protocol)
        except Unreachable as error:
            raise Unreachable(f"{failures}over {last.kind}: {error}") from error
        self._remember(peer, last.kind, failures)
        return stream

    def _first_to_try(self, peer: PeerId) -> int:
        fallback = self._fallbacks.get(peer)
        if fallback is None or trio.current_time() >= fallback.retry_at:
            return 0
        return self._kinds.index(fallback.kind)

    def _remember(self, peer: PeerId, kind: PathKind, failures: str) -> None:
        """Note that `kind` works. `failures` says why the better kinds that were tried do not."""
        if kind == self._kinds[0]:
            self._fallbacks.pop(peer, None)
        elif failures:
            if len(self._fallbacks) >= MAX_KNOWN:
                del self._fallbacks[next(iter(self._fallbacks))]
            retry_at = trio.current_time() + RETRY_S
            self._fallbacks[peer] = _Fallback(kind, retry_at, failures.removesuffix("; "))

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Run `handler` for each bulk stream of `protocol`, whichever path it takes."""
        for transport in self._transports:
            transport.serve(protocol, self._noting(transport.kind, handler))

    def _noting(self, kind: PathKind, handler: StreamHandler) -> StreamHandler:
        async def handle(stream: ByteStream) -> None:
            if kind == self._kinds[0]:
                self._incoming.pop(stream.peer, None)
            elif len(self._incoming) < MAX_KNOWN:
                self._incoming[stream.peer] = kind
            await handler(stream)

        return handle

    @asynccontextmanager
    async def listening(self, listener: StreamListener | None) -> AsyncIterator[None]:
        """Accept bulk connections inside the block. Every stream is cut at its end."""
        async with trio.open_nursery() as nursery:
            if listener is not None:
                for transport in self._transports:
                    nursery.start_soon(transport.listen, listener)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    for transport in self._transports:
                        await transport.cut()
