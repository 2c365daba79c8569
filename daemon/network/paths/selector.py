"""Chooses the path that a peer's bulk bytes take.

A home router lets its node call out and lets nobody in. So the kinds of path that can work for a
pair (`protocol/network/reachability.py`) are tried in order, and a peer stays on the one that
worked until a better one is due to be tried again, or until other kinds can work.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec
import trio

from daemon.network.paths.around import AroundTransport
from daemon.network.paths.direct import DirectTransport
from daemon.network.paths.direct_server import DirectServer
from daemon.network.paths.direct_stream import DirectStream
from daemon.network.paths.libp2p import LibP2PTransport
from daemon.network.paths.paced_stream import Bandwidth
from daemon.network.paths.path import NoPath, Path, Transport, TransportContext
from daemon.network.paths.tls_client import TlsClient
from daemon.network.tcp import StreamListener
from daemon.network.tcp_info import SegmentCounts
from daemon.network.tls.record_socket import ScratchBuffers
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.network.reachability import KIND_OF, PathKind, Way
from protocol.ports.byte_stream import ByteStream, StreamHandler
from protocol.ports.endpoint import Endpoint

# A better path is tried again after this time: a try costs a connect timeout per address.
RETRY_S = 120.0
# Peers whose path is remembered: four times as many as are admitted at once.
MAX_KNOWN = 4096
NO_CALL = "neither end can be called"


class Transports(msgspec.Struct, frozen=True):
    """One transport of each kind, the best first, and the server of their TLS connections."""

    all: tuple[Transport, ...]
    server: DirectServer


def make_transports(context: TransportContext) -> Transports:
    """Make every transport. A new kind of path is one file and one line here."""
    scratch = ScratchBuffers()
    client, server = TlsClient(context, scratch), DirectServer(context, scratch)
    return Transports(
        (
            DirectTransport(context, client, server),
            AroundTransport("punched", context, client),
            AroundTransport("relayed", context, client),
            LibP2PTransport(context),
        ),
        server,
    )


class _Fallback(msgspec.Struct, frozen=True):
    """The path of a peer that has no direct one.

    `kinds` are those that could work when it was chosen.
    """

    kind: PathKind
    kinds: tuple[PathKind, ...]
    retry_at: float
    reason: str


class PathSelector:
    """Opens bulk streams over the best path to each peer, and remembers which path that is."""

    def __init__(
        self,
        transports: Sequence[Transport],
        ways_to: Callable[[Endpoint], tuple[Way, ...]] | None = None,
        bandwidth: Bandwidth | None = None,
    ) -> None:
        """
        Args:
            transports: The kinds of path, the best first.
            ways_to: The ways that can work to an endpoint, best first; without it, all kinds.
            bandwidth: What all streams together may use; without it, as much as they can.
        """
        self._bandwidth = bandwidth or Bandwidth()
        self._transports = tuple(transports)
        self._kinds = [transport.kind for transport in transports]
        self._ways_to = ways_to
        self._fallbacks: dict[PeerId, _Fallback] = {}
        # Peers whose own streams come in over another path than the best.
        self._incoming: dict[PeerId, PathKind] = {}
        # Peers to or from which a direct stream came about; the oldest first.
        self._direct: dict[PeerId, None] = {}

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

    def is_known(self, peer: PeerId) -> bool:
        """Whether a bulk stream to or from the peer has shown its path."""
        return peer in self._fallbacks or peer in self._incoming or peer in self._direct

    async def open(self, endpoint: Endpoint, protocol: str) -> ByteStream:
        """A bulk stream over the best path.

        Raises:
            NoPath: No kind of path leads to the peer.
            Unreachable: A path does, but the peer refuses or shows the wrong identity.
        """
        peer, failures, kinds = endpoint.peer, "", self._kinds_to(endpoint)
        transports = {transport.kind: transport for transport in self._transports}
        for kind in kinds[self._first_to_try(peer, kinds) : -1]:
            try:
                stream = await transports[kind].open(endpoint, protocol)
            except NoPath as error:
                failures += f"{error}; "
            else:
                self._remember(peer, kinds, kind, failures)
                return self._bandwidth.paced(stream)
        last = transports[kinds[-1]]
        try:
            stream = await last.open(endpoint, protocol)
        except Unreachable as error:
            raise NoPath(f"{failures}over {last.kind}: {error}") from error
        self._remember(peer, kinds, last.kind, failures)
        return self._bandwidth.paced(stream)

    def _kinds_to(self, endpoint: Endpoint) -> tuple[PathKind, ...]:
        if self._ways_to is None:
            return tuple(self._kinds)
        ways = self._ways_to(endpoint)
        return tuple(dict.fromkeys(KIND_OF[way] for way in ways))

    def _first_to_try(self, peer: PeerId, kinds: tuple[PathKind, ...]) -> int:
        fallback = self._fallbacks.get(peer)
        if fallback is None or fallback.kinds != kinds or trio.current_time() >= fallback.retry_at:
            return 0
        return kinds.index(fallback.kind)

    def _remember(
        self, peer: PeerId, kinds: tuple[PathKind, ...], kind: PathKind, failures: str
    ) -> None:
        """Note that `kind` works. `failures` says why the better kinds that were tried do not."""
        known = self._fallbacks.get(peer)
        if kind == self._kinds[0]:
            self._fallbacks.pop(peer, None)
            self._note_direct(peer)
        elif failures or known is None or (known.kind, known.kinds) != (kind, kinds):
            if len(self._fallbacks) >= MAX_KNOWN:
                del self._fallbacks[next(iter(self._fallbacks))]
            retry_at = trio.current_time() + RETRY_S if kind != kinds[0] else float("inf")
            reason = failures.removesuffix("; ") or NO_CALL
            self._fallbacks[peer] = _Fallback(kind, kinds, retry_at, reason)

    def _note_direct(self, peer: PeerId) -> None:
        self._direct[peer] = None
        if len(self._direct) > MAX_KNOWN:
            del self._direct[next(iter(self._direct))]

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Run `handler` for each bulk stream of `protocol`, whichever path it takes."""
        for transport in self._transports:
            transport.serve(protocol, self._noting(transport.kind, handler))

    def _noting(self, kind: PathKind, handler: StreamHandler) -> StreamHandler:
        async def handle(stream: ByteStream) -> None:
            # One server serves direct, punched and relayed streams.
            taken = stream.kind if isinstance(stream, DirectStream) else kind
            if taken == self._kinds[0]:
                self._incoming.pop(stream.peer, None)
                self._note_direct(stream.peer)
            elif len(self._incoming) < MAX_KNOWN:
                self._incoming[stream.peer] = taken
            await handler(self._bandwidth.paced(stream))

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
