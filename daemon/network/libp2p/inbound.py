"""Accepts libp2p connections, and decides who makes room when there are too many.

An incoming connection passes three gates. Until it has sent a byte it is a socket and nothing
more, for `FIRST_BYTE_S` at most. Until its handshake is done it holds one of `MAX_HANDSHAKES`
places (`limits/pending_connections.py` says who makes room). As a session it holds one of
`MAX_CONNECTIONS` (`limits/eviction.py` says who makes room).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from multiaddr import Multiaddr

from daemon.network.error_boundary import Refusals, contain_errors
from daemon.network.libp2p.connection import MeasuredYamux
from daemon.network.libp2p.read_ahead_stream import ReadAheadStream
from daemon.network.limits.eviction import InboundConnection, choose_eviction
from daemon.network.limits.pending_connections import PendingConnection, PendingConnections
from daemon.network.limits.prefixes import prefix_of
from daemon.network.tcp import disable_nagle
from daemon.network.traversal.preamble import Preamble, has_preamble, read_preamble
from protocol.identity import PeerId
from protocol.network.reachability import PathKind
from protocol.rate_limiter import RateLimiters

# A member of the largest group talks to 31 others. A bootstrap node carries more.
MAX_CONNECTIONS = 192
# Unfinished at once, from all addresses: each holds a socket, a task and 30 KB.
MAX_HANDSHAKES = 128
# An incoming connection must send its first byte within this time: a round trip of 500 ms, and a
# busy peer.
FIRST_BYTE_S = 3.0
# Evictions for newcomers of one prefix. Above this rate the newcomer itself is dropped.
EVICTIONS_PER_S, EVICTIONS_AT_ONCE = 2.0, 32.0
# Four round trips of 500 ms, and two busy peers.
HANDSHAKE_TIMEOUT_S = 10

ServePreamble = Callable[[Preamble, trio.SocketStream], Awaitable[None]]


class InboundGate:
    """Lets incoming connections in, and evicts when there are more than `MAX_CONNECTIONS`."""

    def __init__(
        self,
        swarm: Swarm,
        refusals: Refusals,
        matters: Callable[[PeerId], bool],
        serve_preamble: ServePreamble,
    ) -> None:
        """
        Args:
            matters: Says whose connections never make room for a newcomer's.
            serve_preamble: Serves a connection that begins with a preamble.
        """
        self._serve_preamble = serve_preamble
        self._swarm = swarm
        self._refusals = refusals
        self._matters = matters
        self._handshakes = PendingConnections(MAX_HANDSHAKES)
        self._sessions: dict[MeasuredYamux, InboundConnection] = {}
        self._evictions = RateLimiters(per_s=EVICTIONS_PER_S, burst=EVICTIONS_AT_ONCE)
        # Seeded by the system, so that no peer can foresee who makes room.
        self._chance = random.Random()

    def open_connections(self) -> int:
        """How many connections are open, in both directions.

        The library goes on counting a cut connection until all of its tasks have noticed.
        """
        muxed: list[Any] = [
            connection.muxed_conn
            for connections in self._swarm.connections.values()
            for connection in connections
        ]
        return sum(one.is_open for one in muxed)

    async def accept(self, stream: trio.SocketStream) -> None:
        """Serve one connection that a peer called, until it is closed."""
        await self.serve(stream, "direct")

    async def serve(self, stream: trio.SocketStream, path: PathKind) -> None:
        """Serve one incoming connection until it is closed. The caller closes its socket."""
        disable_nagle(stream)
        tcp = ReadAheadStream(stream, path)
        scope = trio.CancelScope()
        pending = PendingConnection(
            prefix_of(tcp.remote_host), trio.current_time(), lambda: tcp.heard, scope.cancel
        )
        if self._handshakes.begin(pending) is not None:
            self._refusals.count(
                "busy", f"an unfinished handshake made room: {len(self._handshakes)} are open"
            )
        muxed: Any = None
        preamble: Preamble | None = None
        try:
            with scope:
                muxed, preamble = await self._greet(stream, tcp)
                if preamble is not None:
                    # It keeps its place meanwhile, so that a flood of preambles is bounded too.
                    await self._serve_preamble(preamble, stream)
        finally:
            self._handshakes.end(pending)
            if muxed is None and preamble is None:
                await tcp.cut()
        if muxed is None:
            return
        peer: PeerId = muxed.peer_id.to_base58()
        self._sessions[muxed] = InboundConnection(
            peer, pending.prefix, trio.current_time(), matters=False
        )
        try:
            await self._make_room(muxed)
            # `serve_listeners` closes the socket when this function returns.
            await tcp.closed.wait()
        finally:
            del self._sessions[muxed]

    async def _greet(
        self, stream: trio.SocketStream, tcp: ReadAheadStream
    ) -> tuple[Any, Preamble | None]:
        """Make the handshake, or read the preamble that comes instead.

        Returns:
            The connection, or None when it failed; and the preamble, or None.
        """
        muxed: Any = None
        preamble: Preamble | None = None
        with (
            contain_errors("an incoming connection") as outcome,
            trio.fail_after(HANDSHAKE_TIMEOUT_S),
        ):
            with trio.fail_after(FIRST_BYTE_S):
                await trio.lowlevel.wait_readable(stream.socket.fileno())
            tcp.heard = True
            if await has_preamble(stream):
                preamble = await read_preamble(stream)
            else:
                muxed = await self._swarm.upgrade_inbound_raw_conn(
                    RawConnection(tcp, False), Multiaddr("/ip4/0.0.0.0/tcp/0")
                )
        if outcome.failed is not None:
            reason = "timeout" if isinstance(outcome.failed, trio.TooSlowError) else "handshake"
            self._refusals.count(reason, str(outcome.failed))
        return muxed, preamble

    async def _make_room(self, newest: MeasuredYamux) -> None:
        """Cut one connection when there are more than may be.

        It is the newest one where a stranger's prefix evicted too many, else the choice of
        `choose_eviction`.
        """
        if self.open_connections() <= MAX_CONNECTIONS:
            return
        now, newcomer = trio.current_time(), self._sessions[newest]
        evicted = newest
        # A member that comes back must get in. It shares its prefix with strangers where all are
        # on one machine or behind one router.
        if self._matters(newcomer.peer) or self._evictions.of(newcomer.prefix, now).spend(1.0, now):
            others = {
                muxed: one._replace(matters=self._matters(one.peer))
                for muxed, one in self._sessions.items()
                if muxed is not newest
            }
            chosen = choose_eviction(list(others.values()), self._chance)
            evicted = next((muxed for muxed, one in others.items() if one is chosen), newest)
        self._refusals.count("busy", f"a connection made room: {self.open_connections()} are open")
        await evicted.cut("it made room for another connection")
