"""The connections that are up: to which peers, how far away, and a feed of changes."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any
from weakref import WeakSet

import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from multiaddr import Multiaddr

from daemon.network.addresses import kind_of
from daemon.network.libp2p.connection import MeasuredYamux
from daemon.network.tcp_info import SegmentCounts
from protocol.identity import PeerId
from protocol.ports.network import Link, LinkChange

# Changes kept for a reader that does not read. Then the oldest are lost.
MAX_PENDING_CHANGES = 4096


class _Feed:
    """The changes for one reader."""

    def __init__(self, first: list[LinkChange]) -> None:
        self._changes = deque(first, MAX_PENDING_CHANGES)
        self._arrived = trio.Event()

    def put(self, change: LinkChange) -> None:
        self._changes.append(change)
        self._arrived.set()

    def __aiter__(self) -> AsyncIterator[LinkChange]:
        return self

    async def __anext__(self) -> LinkChange:
        await trio.lowlevel.checkpoint()
        while not self._changes:
            self._arrived = trio.Event()
            await self._arrived.wait()
        return self._changes.popleft()


class _ConnectedPeer:
    """A connected peer. It has several connections when both sides called at once."""

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.connections: list[Any] = []

    def muxed(self) -> list[MeasuredYamux]:
        return [connection.muxed_conn for connection in self.connections]

    def best(self) -> MeasuredYamux:
        """The connection with the shortest round-trip time."""
        return min(
            self.muxed(), key=lambda one: one.rtt_s if one.rtt_s is not None else float("inf")
        )


class LiveConnections(INotifee):
    """Listens to the swarm, and calls `on_end` for each connection that ended."""

    def __init__(self, on_end: Callable[[MeasuredYamux], None]) -> None:
        self._on_end = on_end
        self._peers: dict[PeerId, _ConnectedPeer] = {}
        # Weak, so that a reader that is gone is forgotten.
        self._feeds: WeakSet[_Feed] = WeakSet()

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._peers

    def peers(self) -> set[PeerId]:
        return set(self._peers)

    def links(self) -> list[Link]:
        """What is measured of each connected peer."""
        return [_link(peer, connected) for peer, connected in self._peers.items()]

    def connections(self) -> list[MeasuredYamux]:
        return [muxed for connected in self._peers.values() for muxed in connected.muxed()]

    def hosts_of(self, peer: PeerId) -> list[str]:
        """The remote hosts of a peer's connections: there the peer proved its key."""
        connected = self._peers.get(peer)
        hosts = [muxed.remote_host for muxed in connected.muxed()] if connected else []
        return [host for host in dict.fromkeys(hosts) if host]

    def host_of(self, peer: PeerId) -> str:
        """The remote host of a peer's first connection; empty without one."""
        return next(iter(self.hosts_of(peer)), "")

    def rtt_of(self, peer: PeerId) -> float | None:
        """The round-trip time of a peer's best connection in seconds; None without one."""
        connected = self._peers.get(peer)
        return connected.best().rtt_s if connected is not None else None

    def since_s(self, peer: PeerId) -> float | None:
        """Since when a peer is connected, on the network's clock; None where it is not."""
        connected = self._peers.get(peer)
        return connected.since_s if connected is not None else None

    def relayed(self) -> dict[PeerId, list[MeasuredYamux]]:
        """The connections over relays, of the peers that have no other."""
        only = {
            peer: connected.muxed()
            for peer, connected in self._peers.items()
            if all(one.path == "relayed" for one in connected.muxed())
        }
        return {peer: muxed for peer, muxed in only.items() if muxed}

    def hosts(self) -> set[str]:
        """The remote hosts of all connections."""
        return {connection.remote_host for connection in self.connections()} - {""}

    def segments(self, peer: PeerId) -> SegmentCounts:
        """What the kernel counted on the connections to a peer."""
        connected = self._peers.get(peer)
        muxed = connected.muxed() if connected else []
        return sum((one.segments() for one in muxed), SegmentCounts())

    def changes(self) -> AsyncIterator[LinkChange]:
        """Changes from now on, beginning with the peers that are connected."""
        feed = _Feed([LinkChange(peer=peer, up=True, reason="connected") for peer in self._peers])
        self._feeds.add(feed)
        return feed

    # ---------------------------------------------------------------------------------- INotifee

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        peer: PeerId = conn.muxed_conn.peer_id.to_base58()
        # The call of `disconnected` for a closed connection has been, or will find nothing.
        if conn.is_closed:
            return
        connected = self._peers.get(peer)
        if connected is None:
            connected = self._peers[peer] = _ConnectedPeer(trio.current_time())
            where = _address(conn.muxed_conn)
            self._publish(LinkChange(peer=peer, up=True, reason=f"connected at {where}"))
        connected.connections.append(conn)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        peer: PeerId = conn.muxed_conn.peer_id.to_base58()
        connected = self._peers.get(peer)
        if connected is None or conn not in connected.connections:
            return
        connected.connections.remove(conn)
        if not connected.connections:
            del self._peers[peer]
            lost: str = getattr(conn.muxed_conn, "lost", "") or "the connection was closed"
            self._publish(LinkChange(peer=peer, up=False, reason=lost))
        muxed: Any = conn.muxed_conn
        self._on_end(muxed)

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None: ...
    async def closed_stream(self, network: INetwork, stream: INetStream) -> None: ...
    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None: ...
    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None: ...

    def _publish(self, change: LinkChange) -> None:
        for feed in self._feeds:
            feed.put(change)


def _address(muxed: Any) -> str:
    remote = muxed.get_remote_address()
    if not remote:
        return "a relay"
    host, port = remote
    return f"/{kind_of(host)}/{host}/tcp/{port}"


def _link(peer: PeerId, connected: _ConnectedPeer) -> Link:
    best = connected.best()
    return Link(
        peer=peer,
        path=best.path,
        address=_address(best),
        rtt_s=best.rtt_s,
        since_s=connected.since_s,
        jitter_s=best.jitter_s,
    )
