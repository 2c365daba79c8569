"""The DHT: Kademlia under our own protocol name, used for provider records alone (who has what, to enter a swarm by).

py-libp2p 0.8 takes a `protocol_prefix` and then talks `/ipfs/kad/1.0.0` regardless, so that our nodes would join the public IPFS DHT;
`_OwnName` gives it a host on which that name is ours. Its provider store answers a search from what it holds itself whenever it
holds anything, and refuses the 21st provider of a key for the two days in which dead ones expire; both are mended here. Value
records are off: there is no namespace that could validate one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
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

from daemon.network.addresses import Place, parse_place
from daemon.network.border import contained
from daemon.network.services import service
from protocol.errors import PeerFault
from protocol.identity import PeerId

PREFIX = "/hypergpu"
_OURS = f"{PREFIX}/kad/1.0.0"
MAX_KEYS = 1024  # keys whose providers we keep for others; a swarm has one key for each run
MAX_PROVIDERS = 64  # of one key; any few live ones are enough to enter by
ASKED = 20  # peers asked in a search: Kademlia's k
QUERY_TIMEOUT_S = 5.0
SEARCH_TIMEOUT_S = 20.0
REPROVIDE_S = 600.0  # records live for two days; members come and go much faster
FIRST_REPROVIDES_S = (3.0, 60.0)  # after start, while the routing table fills


class _OwnName:
    """The host, with `/ipfs/kad/1.0.0` renamed on the way in and out."""

    def __init__(self, host: BasicHost) -> None:
        self._host = host

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def set_stream_handler(self, protocol: str, handler: Callable[..., Any]) -> None:
        self._host.set_stream_handler(_OURS if protocol == PROTOCOL_ID else protocol, handler)  # type: ignore[arg-type]

    async def new_stream(self, peer: ID, protocols: list[str]) -> INetStream:
        return await self._host.new_stream(peer, [_OURS if name == PROTOCOL_ID else name for name in protocols])  # type: ignore[misc]


class _Providers(ProviderStore):
    """Bounded in keys and providers; the longest silent one makes room."""

    def add_provider(self, key: bytes, provider: PeerInfo) -> None:
        records = self.providers.get(key)
        if records is None and len(self.providers) >= MAX_KEYS:
            del self.providers[min(self.providers, key=self._last_heard)]
        if records is not None and len(records) >= MAX_PROVIDERS and str(provider.peer_id) not in records:
            del records[min(records, key=lambda name: records[name].timestamp)]
        super().add_provider(key, provider)

    def _last_heard(self, key: bytes) -> float:
        return max((record.timestamp for record in self.providers[key].values()), default=0.0)


class Dht:
    """Entered after the host runs. `learn` is told the addresses of every provider found."""

    def __init__(self, learn: Callable[[list[Place]], None]) -> None:
        self._learn = learn
        self._own: ID | None = None
        self._kad: KadDHT | None = None
        self._provided: set[bytes] = set()

    @property
    def provided(self) -> frozenset[bytes]:
        return frozenset(self._provided)

    @asynccontextmanager
    async def running(self, host: BasicHost) -> AsyncIterator[None]:
        named: Any = _OwnName(host)
        kad = KadDHT(
            named,
            DHTMode.SERVER,
            protocol_prefix=PREFIX,  # type: ignore[arg-type]
            validator=NamespacedValidator({}, strict_validation=True),
            validator_changed=True,
            strict_validation=True,
            enable_values=False,
            max_peers_per_subnet=0,  # one lab or home is one subnet
        )
        kad.provider_store = _Providers(host=named, peer_routing=kad.peer_routing)
        self._own, self._kad = host.get_id(), kad
        async with service(kad), trio.open_nursery() as nursery:
            nursery.start_soon(self._reprovide)
            try:
                yield
            finally:
                self._kad = None
                nursery.cancel_scope.cancel()

    async def connected(self, peer: PeerId, addresses: list[Multiaddr]) -> None:
        """Connecting alone does not fill the routing table."""
        if self._kad is not None and addresses:
            with contained("adding to the routing table"):
                await self._kad.routing_table.add_peer(PeerInfo(ID.from_base58(peer), addresses), skip_server_mode_check=True)

    def lost(self, peer: PeerId) -> None:
        if self._kad is not None:
            with contained("removing from the routing table"):
                self._kad.routing_table.remove_peer(ID.from_base58(peer))

    async def provide(self, key: bytes) -> None:
        self._provided.add(key)
        if self._kad is not None:
            with contained("providing"), trio.move_on_after(SEARCH_TIMEOUT_S):
                await self._kad.provider_store.provide(key)
        await trio.lowlevel.checkpoint()

    async def _reprovide(self) -> None:
        waits = iter(FIRST_REPROVIDES_S)
        while True:
            await trio.sleep(next(waits, REPROVIDE_S))
            for key in list(self._provided):
                await self.provide(key)

    async def find_providers(self, key: bytes) -> list[PeerId]:
        """Asks the peers nearest to the key, and those we are connected to, whatever we hold ourselves."""
        kad = self._kad
        if kad is None:
            return []
        found: dict[str, PeerInfo] = {}

        def add(providers: list[PeerInfo]) -> None:
            for provider in providers:
                found.setdefault(provider.peer_id.to_base58(), provider)

        with contained("our own provider records"):
            add(kad.provider_store.get_providers(key))
        nearest: list[ID] = []
        with contained("looking for the nearest peers"), trio.move_on_after(SEARCH_TIMEOUT_S):
            nearest = list(await kad.peer_routing.find_closest_peers_network(key, ASKED))
        asked = list(dict.fromkeys([*nearest, *kad.host.get_connected_peers()]))[: 2 * ASKED]

        async def ask(peer: ID) -> None:
            with contained("asking for providers"), trio.move_on_after(QUERY_TIMEOUT_S):
                providers, _ = await kad.provider_store._get_providers_from_peer_with_closers(peer, key)
                add(providers)

        async with trio.open_nursery() as nursery:
            for peer in asked:
                if peer != self._own:
                    nursery.start_soon(ask, peer)
        self._learn([place for name, info in found.items() for place in _places(name, info.addrs)])
        return list(found)


def _places(peer: str, addresses: list[Multiaddr]) -> list[Place]:
    places = []
    for address in addresses[:8]:
        text = str(address)
        try:
            places.append(parse_place(text if "/p2p/" in text else f"{text}/p2p/{peer}"))
        except PeerFault:
            continue  # another transport, or nonsense
    return [place for place in places if place.peer == peer]
