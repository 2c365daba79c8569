"""The port of the network: streams, gossip and discovery."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from protocol.identity import PeerId
from protocol.ports.byte_stream import ByteStream, StreamHandler
from protocol.ports.endpoint import Endpoint

# libp2p gossip's own default limit on one message.
MAX_GOSSIP_BYTES = 1 << 20
# A node keeps one control stream, a few fetches and one bulk stream per slice open to a peer.
MAX_STREAMS_PER_PEER = 32


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """The measurements of a live connection."""

    peer: PeerId
    # "direct" or "relayed"; "libp2p" where bulk bytes use this connection because they have no
    # direct path.
    path: str
    address: str
    rtt_s: float | None  # None until the first measurement
    # On the network's monotonic clock.
    since_s: float
    # The median distance of the last round trips from their median; None where too few are known.
    jitter_s: float | None = None
    # Data segments sent to the peer over all connections open now, where the system counts them.
    segments: int = 0
    # The segments among them that had to be sent again.
    retransmits: int = 0


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where a peer comes from. Keys are free; addresses cost something."""

    # The prefix of its address (`daemon/network/limits/prefixes.py`); "" where it is not known.
    prefix: str
    # Whether certificates list the peer as a member, or the user named it.
    matters: bool


class RelayUse(msgspec.Struct, frozen=True, kw_only=True):
    """A relay that passes this node's bulk bytes to one peer on."""

    relay: PeerId
    # The most that the relay's owner allows, bits a second; 0: no cap.
    cap_bps: float = 0.0


class LinkChange(msgspec.Struct, frozen=True, kw_only=True):
    """A peer became reachable (`up`) or was lost; `reason` is one sentence."""

    peer: PeerId
    up: bool
    reason: str


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """The payload bytes moved since the start, per plane (`control` is libp2p, `bulk` is TLS)."""

    control_sent: int = 0
    control_received: int = 0
    bulk_sent: int = 0
    bulk_received: int = 0


class Subscription(Protocol):
    """The messages of one topic, in the order of their arrival.

    A slow reader loses the oldest messages; `dropped` counts them.
    """

    dropped: int

    def __aiter__(self) -> AsyncIterator[tuple[PeerId, bytes]]: ...


class Network(Protocol):
    """One node's place in the swarm.

    Guaranteed: a stream's `peer` is authenticated. A handler registered with `serve` runs once per
    incoming stream, in its own task. A `PeerFault` or `Unreachable` in a handler closes that stream
    alone. Handlers run concurrently, at most `MAX_STREAMS_PER_PEER` for one peer. What happens on
    the wire raises nothing but `Unreachable` (and cancellation).
    """

    @property
    def peer(self) -> PeerId:
        """This node's id."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The multiaddrs that others can join at, the most useful first.

        Each ends in `/p2p/<peer id>`.
        """

    @property
    def endpoint(self) -> Endpoint:
        """This node's bulk endpoint."""

    async def open_stream(self, peer: PeerId, protocol: str) -> ByteStream:
        """Open a stream to a known peer; connect first where needed.

        Raises:
            Unreachable: the peer cannot be reached.
        """

    async def open_bulk(self, endpoint: Endpoint, protocol: str) -> ByteStream:
        """Open a bulk stream: direct TCP with mutual TLS 1.3 pinned to `endpoint.certificate`.

        Where no direct path exists, the same bytes use a stream of the control connection, to the
        holder of the key of `endpoint.peer`.

        Raises:
            Unreachable: the peer cannot be reached.
        """

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Accept streams of `protocol` that others open with `open_stream`.

        Call this before the network starts, once per protocol.
        """

    def serve_bulk(self, protocol: str, handler: StreamHandler) -> None:
        """Accept bulk streams of `protocol`.

        Call this before the network starts, once per protocol.
        """

    def admit(self, endpoint: Endpoint) -> None:
        """Accept bulk streams from the peer that shows exactly this certificate.

        The certificate replaces the peer's earlier one.
        """

    async def publish(self, topic: str, data: bytes) -> None:
        """Gossip `data`, at most `MAX_GOSSIP_BYTES`, to all other subscribers of `topic`.

        The message may be lost; that raises nothing.
        """

    def subscribe(
        self, topic: str, accept: Callable[[PeerId, bytes], bool], *, keep: bool = True
    ) -> Subscription:
        """Subscribe to `topic`. Call this before the network starts.

        The network calls `accept` with the signer and the bytes of each new message, before it
        passes the message on. False drops the message and counts against the peer that brought it.

        Args:
            accept: a synchronous check.
            keep: whether messages wait to be read; without it, `accept` is all that sees them.
        """

    async def provide(self, key: bytes) -> None:
        """Announce in the DHT that this node has `key` (32 bytes).

        The network repeats the announcement until it stops.
        """

    async def find_providers(self, key: bytes) -> list[PeerId]:
        """Find the peers that announced `key` to the swarm, not only to this node's own store.

        The network then knows their addresses.
        """

    def links(self) -> Sequence[Link]:
        """Every live connection."""

    def unreachable(self) -> frozenset[PeerId]:
        """The peers to which every path failed lately, since when none has led there.

        A peer that is gone is among them too, and one that nobody tried to reach is not.
        """

    def relays(self) -> Mapping[PeerId, RelayUse]:
        """The peers to which bulk bytes go through a relay now, and that relay."""

    def keep(self, peers: frozenset[PeerId]) -> None:
        """Prefer exactly these peers to strangers wherever something is scarce.

        Scarce are places, streams and gossip.
        """

    def source_of(self, peer: PeerId) -> Source:
        """Where a connected peer comes from, and whether it precedes strangers (`keep`)."""

    def changes(self) -> AsyncIterator[LinkChange]:
        """Connections as they come and go, beginning with those that are up."""

    def traffic(self) -> Traffic: ...

    def refusals(self) -> Mapping[str, int]:
        """Count what open ports refused before it reached a handler, by reason.

        The reasons are words of `protocol.journal.REFUSALS`.
        """
