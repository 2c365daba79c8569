"""The DHT: Kademlia under our own protocol name, used for provider records alone.

Provider records say which peers have a key, so that a newcomer can enter a swarm. Members are
found through neighbours and remembered addresses first; the DHT is not the only way in.

py-libp2p 0.8 accepts a `protocol_prefix` and then uses `/ipfs/kad/1.0.0` regardless, so that our
nodes would join the public IPFS DHT. `_RenamedHost` gives it a host on which that name is ours.
Its provider store answers a search from its own records whenever it holds any, and it refuses the
21st provider of a key for the two days in which dead providers expire. `_Providers` and
`find_providers` mend both. Value records are off: no namespace could validate one.

Strangers can announce themselves under any key, so the record of a run's key may hold strangers
alone. `provider_table.py` says which of them stay. A run is also announced under `SHARDS` keys,
which lie at different places of the DHT. To hide the run, an attacker must fill the records of all
these keys, at the peers nearest to each key.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p.abc import INetStream
from libp2p.host.basic_host import BasicHost
from libp2p.kad_dht.common import PROTOCOL_ID
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.kad_dht.provider_store import ProviderStore
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.records.validator import NamespacedValidator
from multiaddr import Multiaddr

from daemon.network.addresses import PeerAddress, parse_peer_address
from daemon.network.error_boundary import contain_errors
from daemon.network.libp2p.bounded_swarm import MAX_ADDRESS_BYTES, MAX_ADDRESSES
from daemon.network.libp2p.provider_table import MAX_ANSWER, ProviderTable
from daemon.network.libp2p.service_manager import run_service
from daemon.network.limits.stream_quota import StreamQuota
from protocol.digest import digest
from protocol.errors import PeerFault
from protocol.identity import PeerId

PREFIX = "/hypergpu"
_OURS = f"{PREFIX}/kad/1.0.0"
# Keys under which a run is announced.
SHARDS = 4
# Peers asked in a search: Kademlia's k.
ASKED = 20
QUERY_TIMEOUT_S = 5.0
SEARCH_TIMEOUT_S = 20.0
# Records live for two days, and members come and go much faster.
REPROVIDE_S = 600.0
# Peers that one search remembers. More answers are a flood.
MAX_FOUND = 512
# Streams that a peer may have open to us: a search asks for all shards of a key at once, twice.
STREAMS_OF_PEER = 16
STREAMS_IN_ALL = 64
# For the requests of one stream: two of the library's own timeouts.
STREAM_S = 10.0
# The first pauses after the start, while the routing table fills.
FIRST_REPROVIDES_S = (3.0, 60.0)


class _RenamedHost:
    """The host with `/ipfs/kad/1.0.0` renamed on the way in and out.

    `connect` connects to a peer before a stream goes out. A peer has `STREAMS_OF_PEER` incoming
    streams for `STREAM_S` each, since twelve that stay open would occupy all of the library's
    handlers.
    """

    def __init__(self, host: BasicHost, connect: Callable[[ID], Awaitable[None]]) -> None:
        self._host = host
        self._connect = connect
        self._quota = StreamQuota(STREAMS_OF_PEER, STREAMS_IN_ALL)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def set_stream_handler(self, protocol: str, handler: Callable[..., Any]) -> None:
        async def handle(stream: Any) -> None:
            peer: PeerId = stream.muxed_conn.peer_id.to_base58()
            if self._quota.full(peer):
                await stream.reset()
                return
            release = self._quota.acquire(peer)
            try:
                with trio.move_on_after(STREAM_S) as timeout:
                    await handler(stream)
                if timeout.cancelled_caught:
                    await stream.reset()
            finally:
                release()

        name: Any = _OURS if protocol == PROTOCOL_ID else protocol
        self._host.set_stream_handler(name, handle)

    async def new_stream(self, peer: ID, protocols: list[str]) -> INetStream:
        await self._connect(peer)
        renamed: Any = [_OURS if name == PROTOCOL_ID else name for name in protocols]
        return await self._host.new_stream(peer, renamed)


class _Providers(ProviderStore):
    """The library's provider store over our own table."""

    def __init__(
        self,
        host: Any,
        peer_routing: Any,
        table: ProviderTable[Any],
        prefix: Callable[[PeerId], str],
    ) -> None:
        super().__init__(host=host, peer_routing=peer_routing)
        self._table = table
        self._prefix = prefix

    def add_provider(self, key: bytes, provider: PeerInfo) -> None:
        peer: PeerId = provider.peer_id.to_base58()
        addresses = [
            address for address in provider.addrs if len(address.to_bytes()) <= MAX_ADDRESS_BYTES
        ]
        kept = PeerInfo(provider.peer_id, addresses[:MAX_ADDRESSES])
        if peer == self.local_peer_id.to_base58():
            self._table.own(key)
        self._table.add(key, peer, kept, self._prefix(peer), trio.current_time())

    def get_providers(self, key: bytes) -> list[PeerInfo]:
        return self._table.answer(key, trio.current_time())

    def cleanup_expired(self) -> None:
        self._table.expire(trio.current_time())


def shards_of(key: bytes) -> tuple[bytes, ...]:
    """The keys under which `key` is announced; the first is `key` itself."""
    return (
        key,
        *(digest(b"hypergpu/shard/1\0", key, bytes((number,))) for number in range(1, SHARDS)),
    )


class Dht:
    """Announces keys and finds providers. It is entered after the host runs."""

    def __init__(
        self,
        learn: Callable[[list[PeerAddress]], None],
        connect: Callable[[PeerId, list[PeerAddress]], Awaitable[None]],
        matters: Callable[[PeerId], bool],
        prefix: Callable[[PeerId], str],
    ) -> None:
        """
        Args:
            learn: Called with the addresses of every provider found.
            connect: Connects to a peer that may be at these addresses, or raises `Unreachable`.
            matters: Says which peers' announcements are never pushed out by others.
            prefix: Gives the address prefix of a connected peer.
        """
        self._learn = learn
        self._connect = connect
        self._prefix = prefix
        self._table: ProviderTable[PeerInfo] = ProviderTable(matters, random.Random())
        self._own: ID | None = None
        self._kad: KadDHT | None = None
        self._provided: set[bytes] = set()

    @property
    def provided(self) -> frozenset[bytes]:
        return frozenset(self._provided)

    @asynccontextmanager
    async def running(self, host: BasicHost) -> AsyncIterator[None]:
        async def connect(peer: ID) -> None:
            if not host.get_network().get_connections(peer):
                known: list[Multiaddr] = []
                with contain_errors("looking up addresses"):
                    known = host.get_peerstore().addrs(peer)
                await self._connect(peer.to_base58(), _parse_addresses(peer.to_base58(), known))

        named: Any = _RenamedHost(host, connect)
        kad = KadDHT(
            named,
            DHTMode.SERVER,
            protocol_prefix=PREFIX,  # type: ignore[arg-type]
            validator=NamespacedValidator({}, strict_validation=True),
            validator_changed=True,
            strict_validation=True,
            enable_values=False,
            # A lab or a home is one subnet.
            max_peers_per_subnet=0,
        )
        kad.provider_store = _Providers(named, kad.peer_routing, self._table, self._prefix)
        # `_RenamedHost` limits streams by peer too.
        kad._inbound_limiter = trio.CapacityLimiter(STREAMS_IN_ALL)
        self._own, self._kad = host.get_id(), kad
        async with run_service(kad), trio.open_nursery() as nursery:
            nursery.start_soon(self._reprovide)
            try:
                yield
            finally:
                self._kad = None
                nursery.cancel_scope.cancel()

    async def connected(self, peer: PeerId, addresses: list[Multiaddr]) -> None:
        """Add a connected peer to the routing table, which the library does not do by itself."""
        if self._kad is not None and addresses:
            with contain_errors("adding to the routing table"):
                await self._kad.routing_table.add_peer(
                    PeerInfo(ID.from_base58(peer), addresses), skip_server_mode_check=True
                )

    def lost(self, peer: PeerId) -> None:
        if self._kad is not None:
            with contain_errors("removing from the routing table"):
                self._kad.routing_table.remove_peer(ID.from_base58(peer))

    async def provide(self, key: bytes) -> None:
        self._provided.add(key)
        if self._kad is not None:
            with contain_errors("providing"), trio.move_on_after(SEARCH_TIMEOUT_S):
                for shard in shards_of(key):
                    await self._kad.provider_store.provide(shard)
        await trio.lowlevel.checkpoint()

    async def _reprovide(self) -> None:
        waits = iter(FIRST_REPROVIDES_S)
        while True:
            await trio.sleep(next(waits, REPROVIDE_S))
            for key in list(self._provided):
                await self.provide(key)

    async def find_providers(self, key: bytes) -> list[PeerId]:
        """Ask the peers nearest to each shard of the key, and the connected peers.

        They are asked even where our own table holds providers.
        """
        found: dict[str, PeerInfo] = {}
        async with trio.open_nursery() as nursery:
            for shard in shards_of(key):
                nursery.start_soon(self._search, shard, found)
        self._learn(
            [
                address
                for name, info in found.items()
                for address in _parse_addresses(name, info.addrs)
            ]
        )
        return list(found)

    async def _search(self, key: bytes, found: dict[str, PeerInfo]) -> None:
        kad = self._kad
        if kad is None:
            return

        def add(providers: list[PeerInfo]) -> None:
            """Note one answer, cut to an answer's size, so that one liar cannot fill the list."""
            for provider in providers[:MAX_ANSWER]:
                if len(found) < MAX_FOUND:
                    found.setdefault(provider.peer_id.to_base58(), provider)

        with contain_errors("our own provider records"):
            add(kad.provider_store.get_providers(key))
        nearest: list[ID] = []
        with contain_errors("looking for the nearest peers"), trio.move_on_after(SEARCH_TIMEOUT_S):
            nearest = list(await kad.peer_routing.find_closest_peers_network(key, ASKED))
        asked = list(dict.fromkeys([*nearest, *kad.host.get_connected_peers()]))[: 2 * ASKED]

        async def ask(peer: ID) -> None:
            with contain_errors("asking for providers"), trio.move_on_after(QUERY_TIMEOUT_S):
                providers, _ = await kad.provider_store._get_providers_from_peer_with_closers(
                    peer, key
                )
                add(providers)

        async with trio.open_nursery() as nursery:
            for peer in asked:
                if peer != self._own:
                    nursery.start_soon(ask, peer)


def _parse_addresses(peer: str, multiaddrs: list[Multiaddr]) -> list[PeerAddress]:
    """Those addresses of a peer that we can use."""
    addresses = []
    for multiaddr in multiaddrs[:MAX_ADDRESSES]:
        text = str(multiaddr)
        try:
            addresses.append(parse_peer_address(text if "/p2p/" in text else f"{text}/p2p/{peer}"))
        except PeerFault:
            # The address uses another transport or is malformed.
            continue
    return [address for address in addresses if address.peer == peer]
