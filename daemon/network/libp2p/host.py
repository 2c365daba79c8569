"""The libp2p host: one TCP port, Noise alone, our yamux; it dials and negotiates streams.

Parts of py-libp2p 0.8 that are left out on purpose:

- its listener: it runs in a trio system task, where one exception ends the process, and it keeps
  one of its 250 places for every inbound connection that ever was (`inbound.py` replaces it);
- its dialer: one address per peer, and a minute's ban after one failure;
- identify on our side: system tasks again, and signed records already carry what peers need;
- its auto-connector and its resource manager: both count per address, and a lab or a home is one
  address.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.host.basic_host import _IdentifyNotifee
from libp2p.identity.identify_push.identify_push import ID_PUSH
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.stream.net_stream import NetStream
from libp2p.peer.id import ID
from libp2p.protocol_muxer.exceptions import MultiselectError
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.transport import Transport as Noise
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from daemon.network.addresses import PeerAddress
from daemon.network.error_boundary import Refusals, contain_errors, translate_errors
from daemon.network.libp2p import inbound
from daemon.network.libp2p.bounded_swarm import BoundedPeerStore, BoundedSwarm, drop_push
from daemon.network.libp2p.inbound import (
    HANDSHAKE_TIMEOUT_S,
    MAX_HANDSHAKES,
    InboundGate,
    ServePreamble,
)
from daemon.network.libp2p.library_settings import CachedAddressHost, NoAutoConnector
from daemon.network.libp2p.read_ahead_stream import ReadAheadStream
from daemon.network.libp2p.unread_bytes import UnreadBytes
from daemon.network.libp2p.upgrader import YamuxUpgrader
from daemon.network.tcp import StreamListener, disable_nagle
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.network.reachability import PathKind

# Both sides may have called at once, and an old connection may be dying.
MAX_CONNECTIONS_OF_PEER = 3
# Streams of one peer whose protocol is being negotiated.
MAX_STREAMS_IN_NEGOTIATION = 64
NEGOTIATE_TIMEOUT_S = 10


class Host:
    """Connections to peers. Raises `Unreachable` and nothing else but cancellation."""

    def __init__(
        self,
        secret: bytes,
        addresses: tuple[PeerAddress, ...],
        refusals: Refusals,
        serve_preamble: ServePreamble,
        matters: Callable[[PeerId], bool] = lambda _peer: False,
    ) -> None:
        """
        Args:
            serve_preamble: Serves a connection that begins with a preamble.
            matters: Says whose connections never make room for a newcomer's.
        """
        keys = create_new_key_pair(secret)
        self.id = ID.from_pubkey(keys.public_key)
        self._refusals = refusals
        self._matters = matters
        self._negotiating: Counter[PeerId] = Counter()
        peerstore = BoundedPeerStore()
        peerstore.add_key_pair(self.id, keys)
        noise = Noise(keys, noise_privkey=create_noise_key_pair().private_key)
        self.swarm = BoundedSwarm(
            self.id,
            peerstore,
            YamuxUpgrader(noise, HANDSHAKE_TIMEOUT_S, UnreadBytes()),
            # It never dials: `upgrade` takes connections that this package opened.
            [TCP()],
            # The peer manager decides what is tried again, when and where.
            retry_config=RetryConfig(max_retries=0),
            connection_config=_connection_config(),
        )
        self.swarm.auto_connector = NoAutoConnector()  # type: ignore[assignment]
        self.inbound = InboundGate(self.swarm, refusals, matters, serve_preamble)
        self.basic = CachedAddressHost(
            self.swarm,
            announce_addrs=[Multiaddr(str(address)) for address in addresses],
            disable_identify_address_discovery=True,
            negotiate_timeout=NEGOTIATE_TIMEOUT_S,
        )
        for notifee in list(self.swarm.notifees):
            if isinstance(notifee, _IdentifyNotifee):
                self.swarm.remove_notifee(notifee)
        self.swarm.set_stream_handler(self._serve_stream)
        self.basic.set_stream_handler(ID_PUSH, drop_push)

    def announce(self, addresses: tuple[PeerAddress, ...]) -> None:
        """Hand out these addresses from now on."""
        self.basic.announce([Multiaddr(str(address)) for address in addresses])

    # ---------------------------------------------------------------------------------- connections

    async def listen(self, listener: StreamListener) -> None:
        """Accept connections until cancelled.

        Where no file descriptors are left, trio itself waits and goes on.
        """
        await trio.serve_listeners(self.inbound.accept, [listener])

    def check_room(self, peer: PeerId) -> None:
        """Raises `Unreachable` where the connections are too many for one more to this peer."""
        most = inbound.MAX_CONNECTIONS
        if self.inbound.open_connections() >= most and not self._matters(peer):
            raise Unreachable(f"{most} connections are open, which is the limit")

    async def upgrade(
        self, stream: trio.SocketStream, peer: PeerId, path: PathKind = "direct"
    ) -> None:
        """Make a libp2p connection out of a TCP connection in which this side speaks first.

        Args:
            path: How the TCP connection came about.

        Raises:
            Unreachable: When the other side is not this peer. The TCP connection is then closed.
        """
        disable_nagle(stream)
        tcp = ReadAheadStream(stream, path)
        done = False
        try:
            with (
                translate_errors(f"greeting {peer} at {tcp.remote_host or 'a relay'}"),
                trio.fail_after(HANDSHAKE_TIMEOUT_S),
            ):
                await self.swarm.upgrade_outbound_raw_conn(
                    RawConnection(tcp, True), ID.from_base58(peer)
                )
            done = True
        finally:
            if not done:
                await tcp.cut()

    # ---------------------------------------------------------------------------------- streams

    async def open_stream(self, peer: PeerId, protocol: str) -> NetStream:
        """Open a stream over a connection that is up. Raises `Unreachable`."""
        to = ID.from_base58(peer)
        if not self.swarm.get_connections(to):
            raise Unreachable(f"there is no connection to {peer}")
        with translate_errors(f"opening {protocol} to {peer}"):
            stream: Any = await self.basic.new_stream(to, [protocol])  # type: ignore[list-item]
        return stream  # type: ignore[no-any-return]

    def serve(self, protocol: str, handler: Callable[[NetStream, PeerId], Awaitable[None]]) -> None:
        """Run `handler` for each incoming stream of `protocol`."""

        async def handle(stream: Any) -> None:
            await handler(stream, stream.muxed_conn.peer_id.to_base58())

        self.basic.set_stream_handler(protocol, handle)  # type: ignore[arg-type]

    async def _serve_stream(self, stream: Any) -> None:
        """Serve one incoming stream, in a task of its own. Raises nothing but cancellation."""
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
            # A stream that ended with its connection was not refused.
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


def _connection_config() -> ConnectionConfig:
    """Limits above ours: this package decides who makes room, and does so after the handshake."""
    most = inbound.MAX_CONNECTIONS + MAX_HANDSHAKES
    return ConnectionConfig(
        max_connections=most,
        high_watermark=most,
        max_connections_per_peer=MAX_CONNECTIONS_OF_PEER,
        low_watermark=0,
        min_connections=0,
        # `inbound.HANDSHAKE_TIMEOUT_S` ends a handshake earlier.
        inbound_upgrade_timeout=2 * HANDSHAKE_TIMEOUT_S,
        outbound_upgrade_timeout=2 * HANDSHAKE_TIMEOUT_S,
    )
