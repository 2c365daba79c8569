"""The libp2p host: one TCP port, Noise alone, our yamux; accepting, dialing and stream negotiation
are ours and bounded.

Parts of py-libp2p 0.8 that are left out on purpose: its listener (it runs in a trio system task,
where one exception ends the process, and it keeps a place of its 250 for every inbound connection
that ever was), its dialer (one address per peer, a minute's ban after one failure), identify on our
side (system tasks again; what we need to know travels in signed records), its auto-connector and
its resource manager (both count per address, and a lab or a home is one address).

An incoming connection passes three gates. Until it has sent a byte it is a socket and nothing more,
for `FIRST_BYTE_S` at most. Until its handshake is done it holds one of `MAX_HANDSHAKES` places
(`handshakes.py` says who makes room). As a session it holds one of `MAX_CONNECTIONS`
(`residents.py` says who makes room).
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.host.basic_host import BasicHost, _IdentifyNotifee
from libp2p.identity.identify_push.identify_push import ID_PUSH
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.stream.net_stream import NetStream
from libp2p.peer import peer_record
from libp2p.peer.id import ID
from libp2p.protocol_muxer.exceptions import MultiselectError
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.transport import Transport as Noise
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from daemon.network.addresses import PeerAddress
from daemon.network.error_boundary import Refusals, contain_errors, translate_errors
from daemon.network.libp2p.bounded_swarm import BoundedPeerStore, BoundedSwarm, drop_push
from daemon.network.libp2p.connection import (
    MeasuredYamux,
    ReadAheadStream,
    UnreadBytes,
    YamuxUpgrader,
)
from daemon.network.limits.eviction import InboundConnection, choose_eviction
from daemon.network.limits.pending_connections import PendingConnection, PendingConnections
from daemon.network.limits.prefixes import prefix_of
from daemon.network.tls.session import tune
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.rate_limiter import RateLimiters

# All peers; a member of the largest row talks to 31 others, a bootstrap node carries more.
MAX_CONNECTIONS = 192
# Both sides may have called at once, and an old connection may be dying.
MAX_CONNECTIONS_OF_PEER = 3
# Begun by others and unfinished, all addresses: a socket, a task and 30 KB each.
MAX_HANDSHAKES = 128
# Until an incoming connection must have said something: a round trip of 500 ms, and a busy peer.
FIRST_BYTE_S = 3.0
# For newcomers of one prefix: above that the newcomer goes, not somebody else.
EVICTIONS_PER_S, EVICTIONS_AT_ONCE = 2.0, 32.0
MAX_STREAMS_IN_NEGOTIATION = 64  # of one peer
# Four round trips of 500 ms, and two busy peers.
HANDSHAKE_TIMEOUT_S = 10
DIAL_TIMEOUT_S = 15.0  # TCP connect and handshake together
NEGOTIATE_TIMEOUT_S = 10

# After the import: the library sets up logging when it is imported.
for _name in ("libp2p", "async_service", "multiaddr", "noise"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


def number_own_records_from(first: int) -> None:
    """Let the library number the addresses that this node signs from `first` on, which is above the
    numbers of earlier lives.

    The library takes the wall clock. A peer drops every message that comes with an older record
    than it knows: a node that was started again with its clock an hour behind was heard by nobody,
    and was not told of what others subscribe to.
    """
    peer_record._last_timestamp = max(peer_record._last_timestamp, first)


class _NoAutoConnector:
    """Stands where the library's own peer manager stood."""

    # It believes one is at work and starts none.
    _is_connecting = True

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def run_background_task(self, nursery: trio.Nursery) -> None: ...
    async def maybe_connect(self) -> None: ...
    def record_disconnect(self, peer_id: ID) -> None: ...


class _Transport(TCP):
    """Dials with TCP_NODELAY and a stream that knows when it last received."""

    async def _dial_resolved(
        self, maddr: Multiaddr, source: tuple[str, int] | None = None
    ) -> RawConnection:
        host, port = maddr.value_for_protocol("ip4"), maddr.value_for_protocol("tcp")
        with translate_errors(f"connecting to {host}:{port}"):
            stream = await trio.open_tcp_stream(str(host), int(str(port)))
        tune(stream)
        return RawConnection(ReadAheadStream(stream), True)


class _Basic(BasicHost):
    """Makes its own addresses once.

    The library makes them anew for every message of gossip, 8% of what a round's control costs.
    """

    @cached_property
    def _addresses(self) -> list[Multiaddr]:
        return super().get_addrs()

    def get_addrs(self) -> list[Multiaddr]:
        return list(self._addresses)


class Host:
    """Connections to peers. Everything raised from here is `Unreachable` or cancellation."""

    def __init__(
        self,
        secret: bytes,
        addresses: tuple[PeerAddress, ...],
        refusals: Refusals,
        matters: Callable[[PeerId], bool] = lambda _peer: False,
    ) -> None:
        """`matters` says whose connections never make room for a newcomer's."""
        keys = create_new_key_pair(secret)
        self.id = ID.from_pubkey(keys.public_key)
        self._refusals = refusals
        self._matters = matters
        self._handshakes = PendingConnections(MAX_HANDSHAKES)
        self._residents: dict[MeasuredYamux, InboundConnection] = {}
        self._evictions = RateLimiters(per_s=EVICTIONS_PER_S, burst=EVICTIONS_AT_ONCE)
        # Seeded by the system: nobody may foresee who makes room.
        self._chance = random.Random()
        self._negotiating: Counter[PeerId] = Counter()
        peerstore = BoundedPeerStore()
        peerstore.add_key_pair(self.id, keys)
        noise = Noise(keys, noise_privkey=create_noise_key_pair().private_key)
        # Who makes room is ours to say, and said after the handshake.
        most = MAX_CONNECTIONS + MAX_HANDSHAKES
        config = ConnectionConfig(
            max_connections=most,
            high_watermark=most,
            max_connections_per_peer=MAX_CONNECTIONS_OF_PEER,
            low_watermark=0,
            min_connections=0,
            inbound_upgrade_timeout=2 * HANDSHAKE_TIMEOUT_S,  # ours is the one that counts
            outbound_upgrade_timeout=2 * HANDSHAKE_TIMEOUT_S,
        )
        self.swarm = BoundedSwarm(
            self.id,
            peerstore,
            YamuxUpgrader(noise, HANDSHAKE_TIMEOUT_S, UnreadBytes()),
            [_Transport()],
            # Who retries, when and where is the peer manager's business.
            retry_config=RetryConfig(max_retries=0),
            connection_config=config,
        )
        self.swarm.auto_connector = _NoAutoConnector()  # type: ignore[assignment]
        self.basic = _Basic(
            self.swarm,
            announce_addrs=[Multiaddr(str(place)) for place in addresses],
            disable_identify_address_discovery=True,
            negotiate_timeout=NEGOTIATE_TIMEOUT_S,
        )
        for notifee in list(self.swarm.notifees):
            if isinstance(notifee, _IdentifyNotifee):
                self.swarm.remove_notifee(notifee)
        self.swarm.set_stream_handler(self._take_stream)
        self.basic.set_stream_handler(ID_PUSH, drop_push)

    # ------------------------------------------------------------------------------------------------ connections

    async def listen(self, listener: trio.SocketListener) -> None:
        """Accept until cancelled. trio itself waits and goes on when there are no file descriptors
        left.
        """
        await trio.serve_listeners(self._accept, [listener])

    async def _accept(self, stream: trio.SocketStream) -> None:
        tune(stream)
        tcp = ReadAheadStream(stream)
        scope = trio.CancelScope()
        began = PendingConnection(
            prefix_of(tcp.remote_host), trio.current_time(), lambda: tcp.heard, scope.cancel
        )
        muxed: Any = None
        if self._handshakes.begin(began) is not None:
            self._refusals.count(
                "busy", f"an unfinished handshake made room: {len(self._handshakes)} are open"
            )
        try:
            with (
                scope,
                contain_errors("an incoming connection") as outcome,
                trio.fail_after(HANDSHAKE_TIMEOUT_S),
            ):
                with trio.fail_after(FIRST_BYTE_S):
                    await trio.lowlevel.wait_readable(stream.socket)
                tcp.heard = True
                muxed = await self.swarm.upgrade_inbound_raw_conn(
                    RawConnection(tcp, False), Multiaddr("/ip4/0.0.0.0/tcp/0")
                )
            if outcome.failed is not None:
                reason = "timeout" if isinstance(outcome.failed, trio.TooSlowError) else "handshake"
                self._refusals.count(reason, str(outcome.failed))
        finally:
            self._handshakes.end(began)
            if muxed is None:
                await tcp.cut()
        if muxed is None:
            return
        peer: PeerId = muxed.peer_id.to_base58()
        self._residents[muxed] = InboundConnection(
            peer, began.prefix, trio.current_time(), matters=False
        )
        try:
            await self._make_room(muxed)
            # `serve_listeners` closes the socket when this returns.
            await tcp.closed.wait()
        finally:
            del self._residents[muxed]

    def open_connections(self) -> int:
        """Both ways.

        The library goes on counting one that was cut until all of its tasks have noticed.
        """
        return sum(
            connection.muxed_conn.is_open
            for connections in self.swarm.connections.values()
            for connection in connections
        )

    async def _make_room(self, newest: MeasuredYamux) -> None:
        """When there are more connections than may be, cut one: that of a stranger whose prefix
        evicted too many, else `choose_eviction`'s choice.
        """
        if self.open_connections() <= MAX_CONNECTIONS:
            return
        now, came = trio.current_time(), self._residents[newest]
        out = newest
        # A member that comes back shares its prefix with strangers where all are on one machine or
        # behind one router.
        if self._matters(came.peer) or self._evictions.of(came.prefix, now).take(1.0, now):
            others = {
                muxed: one._replace(matters=self._matters(one.peer))
                for muxed, one in self._residents.items()
                if muxed is not newest
            }
            chosen = choose_eviction(list(others.values()), self._chance)
            out = next((muxed for muxed, one in others.items() if one is chosen), newest)
        self._refusals.count("busy", f"a connection made room: {self.open_connections()} are open")
        await out.cut("it made room for another connection")

    async def dial(self, place: PeerAddress) -> None:
        """Connect to one address. Raises `Unreachable`."""
        peer = ID.from_base58(place.peer)
        if self.swarm.get_connections(peer):
            return
        if self.open_connections() >= MAX_CONNECTIONS and not self._matters(place.peer):
            raise Unreachable(f"{MAX_CONNECTIONS} connections are open, which is all that may be")
        with translate_errors(f"dialing {place}"), trio.fail_after(DIAL_TIMEOUT_S):
            transport = place.transport
            if place.kind == "dns4":
                found = await trio.socket.getaddrinfo(
                    place.host, place.port, trio.socket.AF_INET, trio.socket.SOCK_STREAM
                )
                transport = f"/ip4/{found[0][4][0]}/tcp/{place.port}"
            await self.swarm.dial_addr(Multiaddr(transport), peer)

    # ------------------------------------------------------------------------------------------------ streams

    async def open_stream(self, peer: PeerId, protocol: str) -> NetStream:
        """A negotiated stream over a connection that is up. Raises `Unreachable`."""
        to = ID.from_base58(peer)
        if not self.swarm.get_connections(to):
            raise Unreachable(f"there is no connection to {peer}")
        with translate_errors(f"opening {protocol} to {peer}"):
            stream: Any = await self.basic.new_stream(to, [protocol])  # type: ignore[list-item]
        return stream  # type: ignore[no-any-return]

    def serve(self, protocol: str, handler: Callable[[NetStream, PeerId], Awaitable[None]]) -> None:
        async def handle(stream: Any) -> None:
            await handler(stream, stream.muxed_conn.peer_id.to_base58())

        self.basic.set_stream_handler(protocol, handle)  # type: ignore[arg-type]

    async def _take_stream(self, stream: Any) -> None:
        """Every incoming stream of every connection, in a task of its own.

        Nothing but cancellation leaves here.
        """
        peer: PeerId = stream.muxed_conn.peer_id.to_base58()
        if self._negotiating[peer] >= MAX_STREAMS_IN_NEGOTIATION:
            self._refusals.count("busy", f"{peer} negotiates {self._negotiating[peer]} streams")
            await self._reset(stream)
            return
        self._negotiating[peer] += 1
        try:
            with contain_errors("negotiating a stream") as outcome:
                protocol, handler = await self.basic.multiselect.negotiate(
                    MultiselectCommunicator(stream), NEGOTIATE_TIMEOUT_S
                )
        finally:
            self._negotiating[peer] -= 1
            if not self._negotiating[peer]:
                del self._negotiating[peer]
        if outcome.failed is not None or protocol is None or handler is None:
            # A connection that broke refused nothing.
            if not stream.muxed_conn.event_shutting_down.is_set():
                silent = isinstance(outcome.failed, MultiselectError) and isinstance(
                    outcome.failed.__context__, trio.TooSlowError
                )
                self._refusals.count(
                    "timeout" if silent else "unknown_kind", f"{peer}: {outcome.failed}"
                )
            await self._reset(stream)
            return
        stream.set_protocol(protocol)
        with contain_errors(f"serving {protocol}") as outcome:
            await handler(stream)
        if outcome.failed is not None and not stream.muxed_conn.event_shutting_down.is_set():
            self._refusals.count("malformed", f"{peer} on {protocol}: {outcome.failed}")
        if outcome.failed is not None:
            await self._reset(stream)

    async def _reset(self, stream: Any) -> None:
        with contain_errors("resetting a stream"):
            await stream.reset()
