"""The peer manager: keeps enough connections, replaces lost ones, and trades addresses of members
with its neighbours.

Rules:

- Wanted is everybody while the swarm is small (`SMALL_SWARM`), else `min_connections` of them.
- While fewer are up than wanted, members of the book are dialed, several at once, each with its own backoff. Join addresses are
  tried for ever.
- Neighbours are asked for records (`/hypergpu/peers/1`) when they connect, then at intervals that double from `EXCHANGE_S[0]`
  to `EXCHANGE_S[1]` and begin anew when the swarm changes.
- When there is nobody else to try, the DHT is asked for providers of our keys.
- Addresses that somebody else told of are tried as `dialing.py` allows.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio
from multiaddr import Multiaddr

from daemon.network.addresses import PeerAddress
from daemon.network.error_boundary import Refusals
from daemon.network.libp2p.dht import Dht
from daemon.network.libp2p.host import Host
from daemon.network.peers.address_book import (
    MAX_EXCHANGE_BYTES,
    MAX_RECORDS,
    AddressBook,
    decode_exchange,
    encode_exchange,
)
from daemon.network.peers.dial_targets import DialTargets
from daemon.network.peers.live_connections import LiveConnections
from daemon.network.peers.own_record import OwnRecord
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.ports.byte_stream import ByteStream

PEERS_PROTOCOL = "/hypergpu/peers/1"
# Other members with whom a node connects to everybody: gossip in one hop, and no search for slice
# partners.
SMALL_SWARM = 16
# A connection costs a core about 0.25 s on a busy machine, and mostly waits on a distant one.
DIALS_AT_ONCE = 6
EXCHANGE_S = (1.0, 30.0)
EXCHANGE_TIMEOUT_S = 10.0
# Between searches in the DHT while too few are known.
SEARCH_S = 30.0
LENGTH_BYTES = 4
# Neighbours, when another node uses our key.
TOLD_AT_ONCE = 4
# Until an address is looked at again for which there was no allowance.
LATER_S = 10.0
# Who told of what the DHT said: its answers name nobody.
DHT_SOURCE = "dht"


class PeerManager:
    """`open_stream` opens one of ours to a connected peer."""

    def __init__(
        self,
        host: Host,
        dht: Dht,
        links: LiveConnections,
        book: AddressBook,
        reach: DialTargets,
        *,
        own: OwnRecord,
        min_connections: int,
        refusals: Refusals,
        open_stream: Callable[[PeerId, str], Awaitable[ByteStream]],
    ) -> None:
        self._host = host
        self._dht = dht
        self._links = links
        self._book = book
        self._own = own
        self._min_connections = min_connections
        self._refusals = refusals
        self._open_stream = open_stream
        self._dialing: dict[PeerId, trio.Event] = {}
        self._reach = reach
        self._news = trio.Event()
        self._sealed_anew = trio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery)
            nursery.start_soon(self._trade)
            nursery.start_soon(self._search)
            await self._keep_connected(nursery)

    def learn(self, places: list[PeerAddress]) -> None:
        if self._book.hint(places, DHT_SOURCE):
            self._wake()

    def _wake(self) -> None:
        self._news.set()

    # ------------------------------------------------------------------------------------------------ connecting

    async def connect(self, peer: PeerId) -> None:
        """Be connected to a known peer. Raises `Unreachable`."""
        if peer in self._links:
            return
        under_way = self._dialing.get(peer)
        if under_way is not None:
            await under_way.wait()
            if peer in self._links:
                return
        await self._dial(peer)

    async def _dial(self, peer: PeerId) -> None:
        if not self._book.places_of(peer):
            raise Unreachable(f"no address of {peer} is known")
        done = self._dialing[peer] = trio.Event()
        reasons: list[str] = []
        try:
            tried = 0
            for place, source in self._reach.places(peer, reasons):
                tried += 1
                try:
                    await self._host.dial(place)
                except Unreachable as error:
                    reasons.append(str(error))
                else:
                    self._reach.proved(place, source)
                    return
                if peer in self._links:
                    return  # it called us meanwhile
            if tried:
                self._book.failed(peer, trio.current_time())
            else:
                self._book.postpone(peer, trio.current_time() + LATER_S)
            raise Unreachable("; ".join(reasons))
        finally:
            if self._dialing.get(peer) is done:
                del self._dialing[peer]
            done.set()
            self._wake()

    async def _keep_connected(self, nursery: trio.Nursery) -> None:
        async def attempt(peer: PeerId) -> None:
            with suppress(Unreachable):  # counted in the book
                await self._dial(peer)

        while True:
            self._news = trio.Event()
            now = trio.current_time()
            up = self._links.peers()
            busy = up | set(self._dialing)
            known = self._book.members(self._dht.provided)
            wanted = max(self._min_connections, SMALL_SWARM if known <= SMALL_SWARM else 0)
            room = min(wanted - len(busy), DIALS_AT_ONCE - len(self._dialing))
            candidates = self._book.to_dial(busy, self._dht.provided, now)
            if known > SMALL_SWARM:
                # Random neighbours keep a large swarm in one piece.
                random.shuffle(candidates)
            for peer in candidates[: max(room, 0)]:
                nursery.start_soon(attempt, peer)
            due = self._book.next_due(busy, now)
            with trio.move_on_at(due if due is not None and len(busy) < wanted else float("inf")):
                await self._news.wait()
            await trio.lowlevel.checkpoint()

    async def _watch(self, nursery: trio.Nursery) -> None:
        async for change in self._links.changes():
            if change.up:
                self._book.connected(
                    change.peer,
                    trio.current_time(),
                    next(iter(self._links.hosts_of(change.peer)), ""),
                )
                nursery.start_soon(self._greet, change.peer)
            else:
                self._book.lost(change.peer, trio.current_time())
                self._dht.lost(change.peer)
            self._wake()

    async def _greet(self, peer: PeerId) -> None:
        """A new neighbour: who does it know, and into the routing table with it."""
        await self._exchange_with(peer)
        places = self._book.places_of(peer)
        await self._dht.connected(peer, [Multiaddr(str(place)) for place in places])

    # ------------------------------------------------------------------------------------------------ trading addresses

    async def serve(self, stream: ByteStream) -> None:
        """The answering side of `/hypergpu/peers/1`."""
        with trio.move_on_after(EXCHANGE_TIMEOUT_S):
            theirs = await _receive(stream)
            await _send(stream, self._ours(stream.peer))
            self._take(theirs, stream.peer)

    async def _exchange_with(self, peer: PeerId) -> None:
        try:
            with trio.move_on_after(EXCHANGE_TIMEOUT_S):
                stream = await self._open_stream(peer, PEERS_PROTOCOL)
                try:
                    await _send(stream, self._ours(peer))
                    self._take(await _receive(stream), peer)
                finally:
                    await stream.aclose()
        except Unreachable:
            # The link says so too, if it is more than this stream.
            pass
        except PeerFault as fault:
            self._refusals.count(fault.reason, str(fault))

    def _ours(self, asker: PeerId) -> bytes:
        known = self._book.to_hand_out(self._links.peers(), trio.current_time())
        if len(known) >= MAX_RECORDS:
            known = random.sample(known, MAX_RECORDS - 1)
        about_asker = self._book.record_of(asker)
        # First, so that a node learns of another one with its key.
        if about_asker is not None:
            known = [about_asker, *(one for one in known if one is not about_asker)][
                : MAX_RECORDS - 1
            ]
        return encode_exchange([self._own.sealed(self._dht.provided), *known])

    def _take(self, data: bytes, source: PeerId) -> None:
        """Raises `PeerFault` at the first record that is wrong; those before it are kept."""
        new = False
        try:
            for signed in decode_exchange(data):
                if not self._own.is_own(signed):
                    new = self._book.learn(signed, trio.current_time(), source) or new
                elif self._own.heard(signed):
                    self._sealed_anew.set()
        finally:
            if new:
                self._wake()

    async def _trade(self) -> None:
        pause = EXCHANGE_S[0]
        size = 0
        while True:
            with trio.move_on_after(pause * random.uniform(0.7, 1.3)):
                await self._sealed_anew.wait()
            up = sorted(self._links.peers())
            asked = random.sample(
                up, min(len(up), TOLD_AT_ONCE if self._sealed_anew.is_set() else 1)
            )
            self._sealed_anew = trio.Event()
            for peer in asked:
                await self._exchange_with(peer)
            known = len(self._book)
            pause = EXCHANGE_S[0] if known != size else min(2 * pause, EXCHANGE_S[1])
            size = known

    async def _search(self) -> None:
        while True:
            await trio.sleep(SEARCH_S * random.uniform(0.7, 1.3))
            if (
                self._links.peers()
                and self._book.members(self._dht.provided) < self._min_connections
            ):
                for key in self._dht.provided:
                    await self._dht.find_providers(key)


async def _send(stream: ByteStream, data: bytes) -> None:
    await stream.send_all(len(data).to_bytes(LENGTH_BYTES, "big") + data)
    await stream.send_eof()


async def _receive(stream: ByteStream) -> bytes:
    """Raises `PeerFault("oversized")`, `Unreachable`."""
    data = b""
    size = LENGTH_BYTES
    while len(data) < size:
        piece = await stream.receive_some(size - len(data))
        if not piece:
            raise Unreachable("ended in the middle of a peer exchange")
        data += piece
        if len(data) == size == LENGTH_BYTES:
            size += int.from_bytes(data, "big")
            if size > LENGTH_BYTES + MAX_EXCHANGE_BYTES:
                raise PeerFault("oversized", f"a peer exchange of {size} bytes from {stream.peer}")
    return data[LENGTH_BYTES:]
