"""The peer manager: keeps enough connections and replaces lost ones.

- While the swarm is small (`SMALL_SWARM`), a node connects to every peer that it knows; else to
  `min_connections` of them.
- While fewer connections are up than wanted, peers of the address book are dialed, several at
  once, each with its own backoff. Join addresses are tried for ever.
- An entry point that is not connected is tried now and then even while enough connections are up:
  the swarm may have fallen into two halves that know only their own members.
- Where no other peer is left to try, the DHT is asked for providers of this node's keys.
- Addresses that others named are tried as `dial_policy.py` allows.
- A peer that none of its addresses leads to is reached through other members (`detours.py`).
"""

from __future__ import annotations

import random
from contextlib import suppress

import trio
from multiaddr import Multiaddr

from daemon.network.addresses import PeerAddress
from daemon.network.libp2p.dht import Dht
from daemon.network.peers.address_book import AddressBook
from daemon.network.peers.change_signal import ChangeSignal
from daemon.network.peers.detours import Detours
from daemon.network.peers.direct_calls import DirectCalls
from daemon.network.peers.exchange import RecordExchange
from daemon.network.peers.live_connections import LiveConnections
from protocol.errors import Unreachable
from protocol.identity import PeerId

# Up to this many other members, a node connects to all of them: gossip arrives in one hop, and no
# slice partner has to be searched for.
SMALL_SWARM = 16
# A connection costs a core about 0.25 s on a busy machine, and mostly waits on a distant one.
DIALS_AT_ONCE = 6
# Between searches in the DHT while too few peers are known.
SEARCH_S = 30.0
# Between tries of entry points while enough connections are up.
ENTRY_S = 60.0
# An address that the dial policy held back is looked at again after this time.
POSTPONED_S = 10.0
# The source of what the DHT says: its answers name none.
DHT_SOURCE = "dht"


class PeerManager:
    """Dials peers, watches connections, and feeds the address book and the routing table."""

    def __init__(
        self,
        dht: Dht,
        connections: LiveConnections,
        book: AddressBook,
        calls: DirectCalls,
        exchange: RecordExchange,
        detours: Detours,
        changed: ChangeSignal,
        *,
        min_connections: int,
    ) -> None:
        """`changed` wakes the dialing loop when peers or connections changed."""
        self._dht = dht
        self._connections = connections
        self._book = book
        self._calls = calls
        self._exchange = exchange
        self._detours = detours
        self._changed = changed
        self._min_connections = min_connections
        self._dialing: dict[PeerId, trio.Event] = {}

    async def run(self) -> None:
        """Keep this node connected, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery)
            nursery.start_soon(self._exchange.run)
            nursery.start_soon(self._search)
            nursery.start_soon(self._detours.run)
            await self._keep_connected(nursery)

    def learn(self, addresses: list[PeerAddress]) -> None:
        """Note addresses that the DHT gave."""
        if self._book.hint(addresses, DHT_SOURCE):
            self._changed.set()

    async def connect(self, peer: PeerId) -> None:
        """Connect to a known peer, unless a connection is up. Raises `Unreachable`."""
        if peer in self._connections:
            return
        under_way = self._dialing.get(peer)
        if under_way is not None:
            await under_way.wait()
            if peer in self._connections:
                return
        await self._dial(peer)

    async def _dial(self, peer: PeerId) -> None:
        if not self._book.addresses_of(peer):
            raise Unreachable(f"no address of {peer} is known")
        done = self._dialing[peer] = trio.Event()
        try:
            called = await self._calls.connect(peer)
            if called.connected or peer in self._connections:
                return
            try:
                await self._detours.connect(peer)
            except Unreachable as error:
                reasons = (*called.reasons, str(error))
            else:
                return
            if called.tried:
                self._book.failed(peer, trio.current_time())
            else:
                self._book.postpone(peer, trio.current_time() + POSTPONED_S)
            raise Unreachable("; ".join(reasons))
        finally:
            if self._dialing.get(peer) is done:
                del self._dialing[peer]
            done.set()
            self._changed.set()

    async def _keep_connected(self, nursery: trio.Nursery) -> None:
        async def attempt(peer: PeerId) -> None:
            # The address book counts failures.
            with suppress(Unreachable):
                await self._dial(peer)

        entry_at = trio.current_time() + ENTRY_S
        while True:
            self._changed.renew()
            now = trio.current_time()
            busy = self._connections.peers() | set(self._dialing)
            known = self._book.members(self._dht.provided)
            wanted = max(self._min_connections, SMALL_SWARM if known <= SMALL_SWARM else 0)
            room = min(wanted - len(busy), DIALS_AT_ONCE - len(self._dialing))
            candidates = self._book.to_dial(busy, self._dht.provided, now)
            if known > SMALL_SWARM:
                # Random neighbours keep a large swarm in one piece.
                random.shuffle(candidates)
            chosen = candidates[: max(room, 0)]
            if now >= entry_at:
                entry_at = now + ENTRY_S
                chosen += [one for one in candidates if self._book.is_named(one)][not chosen :][:1]
            for peer in chosen:
                nursery.start_soon(attempt, peer)
            due = self._book.next_due(busy, now)
            until = due if due is not None and len(busy) < wanted else entry_at
            with trio.move_on_at(min(until, entry_at)):
                await self._changed.wait()
            await trio.lowlevel.checkpoint()

    async def _watch(self, nursery: trio.Nursery) -> None:
        async for change in self._connections.changes():
            if change.up:
                host = self._connections.host_of(change.peer)
                self._book.connected(change.peer, trio.current_time(), host)
                self._detours.connected(change.peer)
                nursery.start_soon(self._greet, change.peer)
            else:
                self._book.lost(change.peer, trio.current_time())
                self._dht.lost(change.peer)
            self._changed.set()

    async def _greet(self, peer: PeerId) -> None:
        """Trade records with a new neighbour, and add it to the routing table."""
        await self._exchange.ask(peer)
        addresses = self._book.addresses_of(peer)
        await self._dht.connected(peer, [Multiaddr(str(address)) for address in addresses])

    async def _search(self) -> None:
        while True:
            await trio.sleep(SEARCH_S * random.uniform(0.7, 1.3))
            known = self._book.members(self._dht.provided)
            if self._connections.peers() and known < self._min_connections:
                for key in self._dht.provided:
                    await self._dht.find_providers(key)
