"""A path: how bulk bytes reach one peer, and what a transport offers for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
import trio

from daemon.network.byte_counter import ByteCounter
from daemon.network.error_boundary import Refusals
from daemon.network.graceful_close import BackgroundCloser, ServedStream
from daemon.network.paths.admission import AdmittedPeers
from daemon.network.tcp import StreamListener
from daemon.network.tcp_info import SegmentCounts
from daemon.network.tls.certificate import BulkCertificate
from daemon.network.traversal.preamble import Preamble
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.network.reachability import PathKind, Way
from protocol.ports.byte_stream import ByteStream, StreamHandler
from protocol.ports.endpoint import Endpoint


class NoPath(Unreachable):
    """A transport found no way to the peer, so that the next transport may be tried."""


class Path(msgspec.Struct, frozen=True, kw_only=True):
    """How bulk bytes to and from one peer travel now."""

    peer: PeerId
    kind: PathKind
    # One sentence that a person reads.
    reason: str
    # What the kernel counted on the open bulk streams that this node opened.
    segments: SegmentCounts = SegmentCounts()


class Transport(Protocol):
    """One kind of path.

    `open` raises `NoPath` where this kind does not lead to the peer, and `Unreachable` where it
    does but the peer refuses or shows the wrong identity.
    """

    kind: PathKind

    async def open(self, endpoint: Endpoint, protocol: str) -> ByteStream: ...

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Run `handler` for each stream of `protocol` that an admitted peer opens."""

    def segments(self, peer: PeerId) -> SegmentCounts:
        """What the kernel counted on the open streams of this kind to `peer`."""

    async def listen(self, listener: StreamListener) -> None:
        """Accept connections of this kind, until cancelled."""

    async def cut(self) -> None:
        """Break every stream of this kind: the network ends."""


RunHandler = Callable[[ServedStream, StreamHandler, Callable[[], None]], Awaitable[None]]
"""Runs a handler, calls the function at its end, and returns when the stream is over."""


class TransportContext(msgspec.Struct, frozen=True, kw_only=True):
    """What the network gives to each transport."""

    certificate: BulkCertificate
    admitted: AdmittedPeers
    refusals: Refusals
    closer: BackgroundCloser
    traffic: ByteCounter
    run_handler: RunHandler
    # The hosts to try for an endpoint; called with the host at which the peer was met.
    hosts_of: Callable[[Endpoint], tuple[str, ...]]
    on_met: Callable[[PeerId, str], None]
    # The ways to try from this node to an endpoint, best first.
    ways_to: Callable[[Endpoint], tuple[Way, ...]]
    # A TCP connection to a peer in one of the ways that need others. Raises `Unreachable`.
    connect_around: Callable[[PeerId, Way], Awaitable[trio.SocketStream]]
    # Serves a connection to the bulk port that begins with a preamble.
    serve_preamble: Callable[[Preamble, trio.SocketStream], Awaitable[None]]
    # Control streams over the libp2p connection.
    open_stream: Callable[[PeerId, str], Awaitable[ByteStream]]
    serve_stream: Callable[[str, StreamHandler], None]
