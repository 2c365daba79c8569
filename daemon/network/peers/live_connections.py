"""Live connections: who is up, how far away, and a feed of changes."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any
from weakref import WeakSet

import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from multiaddr import Multiaddr

from daemon.network.libp2p.connection import MeasuredYamux
from daemon.network.tcp_info import SegmentCounts
from protocol.identity import PeerId
from protocol.ports.network import Link, LinkChange

# Of one reader that does not read; then the oldest are lost.
MAX_PENDING_CHANGES = 4096


class _Feed:
    """One reader's changes."""

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


class _Up:
    """A peer that is up, over one connection or several (both sides may have called at once)."""

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.connections: list[Any] = []

    def best(self) -> MeasuredYamux:
        """The connection whose time is measured best."""
        muxed: list[MeasuredYamux] = [connection.muxed_conn for connection in self.connections]
        return min(muxed, key=lambda one: one.rtt_s if one.rtt_s is not None else float("inf"))


class LiveConnections(INotifee):
    """Told by the swarm of connections, tells `on_end` of each one that is gone."""

    def __init__(self, on_end: Callable[[MeasuredYamux], None]) -> None:
        self._on_end = on_end
        self._up: dict[PeerId, _Up] = {}
        self._feeds: WeakSet[_Feed] = WeakSet()  # a reader that is gone is forgotten

    def peers(self) -> set[PeerId]:
        return set(self._up)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._up

    def all(self) -> list[Link]:
        return [_link(peer, up) for peer, up in self._up.items()]

    def hosts_of(self, peer: PeerId) -> list[str]:
        """Where a peer's key was proved: the other ends of its live connections."""
        up = self._up.get(peer)
        hosts = [connection.muxed_conn.remote_host for connection in up.connections] if up else []
        return [host for host in dict.fromkeys(hosts) if host]

    def hosts(self) -> set[str]:
        """The other ends of all live connections."""
        return {connection.remote_host for connection in self.connections()} - {""}

    def segments(self, peer: PeerId) -> SegmentCounts:
        """What the kernel counted on the connections to a peer."""
        up = self._up.get(peer)
        return (
            sum(
                (connection.muxed_conn.segments() for connection in up.connections), SegmentCounts()
            )
            if up
            else SegmentCounts()
        )

    def changes(self) -> AsyncIterator[LinkChange]:
        feed = _Feed([LinkChange(peer=peer, up=True, reason="connected") for peer in self._up])
        self._feeds.add(feed)
        return feed

    def connections(self) -> list[MeasuredYamux]:
        return [connection.muxed_conn for up in self._up.values() for connection in up.connections]

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        peer: PeerId = conn.muxed_conn.peer_id.to_base58()
        up = self._up.get(peer)
        if conn.is_closed:
            # Its "disconnected" has been, or comes and finds nothing.
            return
        if up is None:
            up = self._up[peer] = _Up(trio.current_time())
            self._say(
                LinkChange(peer=peer, up=True, reason=f"connected at {_address(conn.muxed_conn)}")
            )
        up.connections.append(conn)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        peer: PeerId = conn.muxed_conn.peer_id.to_base58()
        up = self._up.get(peer)
        if up is None or conn not in up.connections:
            return
        up.connections.remove(conn)
        if not up.connections:
            del self._up[peer]
            lost: str = getattr(conn.muxed_conn, "lost", "") or "the connection was closed"
            self._say(LinkChange(peer=peer, up=False, reason=lost))
        muxed: Any = conn.muxed_conn
        self._on_end(muxed)

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None: ...
    async def closed_stream(self, network: INetwork, stream: INetStream) -> None: ...
    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None: ...
    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None: ...

    def _say(self, change: LinkChange) -> None:
        for feed in self._feeds:
            feed.put(change)


def _address(muxed: Any) -> str:
    remote = muxed.get_remote_address()
    return f"/ip4/{remote[0]}/tcp/{remote[1]}" if remote else "an unknown address"


def _link(peer: PeerId, up: _Up) -> Link:
    best = up.best()
    return Link(
        peer=peer,
        path="direct",
        address=_address(best),
        rtt_s=best.rtt_s,
        since_s=up.since_s,
        jitter_s=best.jitter_s,
    )
