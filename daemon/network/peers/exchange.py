"""Trades signed peer records with neighbours over `/hypergpu/peers/1`.

A neighbour is asked when it connects, then at intervals that double from `EXCHANGE_S[0]` to
`EXCHANGE_S[1]` and begin anew when the swarm changes.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import trio

from daemon.network.error_boundary import Refusals
from daemon.network.libp2p.dht import Dht
from daemon.network.peers.address_book import AddressBook
from daemon.network.peers.change_signal import ChangeSignal
from daemon.network.peers.live_connections import LiveConnections
from daemon.network.peers.own_record import OwnRecord
from daemon.network.peers.peer_record import (
    MAX_EXCHANGE_BYTES,
    MAX_RECORDS,
    decode_exchange,
    encode_exchange,
)
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.ports.byte_stream import ByteStream

PEERS_PROTOCOL = "/hypergpu/peers/1"
EXCHANGE_S = (1.0, 30.0)
EXCHANGE_TIMEOUT_S = 10.0
LENGTH_BYTES = 4
# Neighbours asked at once when another node uses our key.
ASKED_AT_ONCE = 4


class RecordExchange:
    """Both sides of the exchange. `changed` is set when a new peer becomes known."""

    def __init__(
        self,
        book: AddressBook,
        connections: LiveConnections,
        dht: Dht,
        own: OwnRecord,
        refusals: Refusals,
        open_stream: Callable[[PeerId, str], Awaitable[ByteStream]],
        changed: ChangeSignal,
    ) -> None:
        """`open_stream` opens a stream to a connected peer."""
        self._book = book
        self._connections = connections
        self._dht = dht
        self._own = own
        self._refusals = refusals
        self._open_stream = open_stream
        self._changed = changed
        self._sealed_anew = trio.Event()

    async def run(self) -> None:
        """Ask neighbours from time to time, until cancelled."""
        pause = EXCHANGE_S[0]
        size = 0
        while True:
            with trio.move_on_after(pause * random.uniform(0.7, 1.3)):
                await self._sealed_anew.wait()
            up = sorted(self._connections.peers())
            count = ASKED_AT_ONCE if self._sealed_anew.is_set() else 1
            asked = random.sample(up, min(len(up), count))
            self._sealed_anew = trio.Event()
            for peer in asked:
                await self.ask(peer)
            known = len(self._book)
            pause = EXCHANGE_S[0] if known != size else min(2 * pause, EXCHANGE_S[1])
            size = known

    def tell_now(self) -> None:
        """Trade records with a few neighbours at once, since our own record changed."""
        self._sealed_anew.set()

    async def serve(self, stream: ByteStream) -> None:
        """Answer a neighbour."""
        with trio.move_on_after(EXCHANGE_TIMEOUT_S):
            theirs = await _receive(stream)
            await _send(stream, self._records_for(stream.peer))
            self._learn(theirs, stream.peer)

    async def ask(self, peer: PeerId) -> None:
        """Trade records with one neighbour."""
        try:
            with trio.move_on_after(EXCHANGE_TIMEOUT_S):
                stream = await self._open_stream(peer, PEERS_PROTOCOL)
                try:
                    await _send(stream, self._records_for(peer))
                    self._learn(await _receive(stream), peer)
                finally:
                    await stream.aclose()
        except Unreachable:
            # If more than this stream broke, the feed of changes reports the connection too.
            pass
        except PeerFault as fault:
            self._refusals.count(fault.reason, str(fault))

    def _records_for(self, asker: PeerId) -> bytes:
        known = self._book.to_hand_out(self._connections.peers(), trio.current_time())
        if len(known) >= MAX_RECORDS:
            known = random.sample(known, MAX_RECORDS - 1)
        about_asker = self._book.record_of(asker)
        # The asker's own record comes first, so that it learns of another node with its key.
        if about_asker is not None:
            others = [one for one in known if one is not about_asker]
            known = [about_asker, *others][: MAX_RECORDS - 1]
        return encode_exchange([self._own.sealed(self._dht.provided), *known])

    def _learn(self, data: bytes, source: PeerId) -> None:
        """Note the records of one message.

        Raises:
            PeerFault: At the first record that is wrong. The records before it are kept.
        """
        new = False
        try:
            for signed in decode_exchange(data):
                if not self._own.is_own(signed):
                    new = self._book.learn(signed, trio.current_time(), source) or new
                elif self._own.heard(signed):
                    self._sealed_anew.set()
        finally:
            if new:
                self._changed.set()


async def _send(stream: ByteStream, data: bytes) -> None:
    await stream.send_all(len(data).to_bytes(LENGTH_BYTES, "big") + data)
    await stream.send_eof()


async def _receive(stream: ByteStream) -> bytes:
    """One message. Raises `PeerFault("oversized")` or `Unreachable`."""
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
