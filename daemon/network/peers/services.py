"""The parts that keep a node connected to its peers, put together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from daemon.network.addresses import PeerAddress
from daemon.network.error_boundary import Refusals
from daemon.network.libp2p.dht import Dht
from daemon.network.libp2p.host import Host
from daemon.network.peers.address_book import AddressBook
from daemon.network.peers.change_signal import ChangeSignal
from daemon.network.peers.detours import Detours
from daemon.network.peers.dial_targets import DialTargets
from daemon.network.peers.direct_calls import DirectCalls
from daemon.network.peers.exchange import RecordExchange
from daemon.network.peers.live_connections import LiveConnections
from daemon.network.peers.manager import PeerManager
from daemon.network.peers.own_record import OwnRecord
from daemon.network.peers.unreachable import UnreachablePeers
from daemon.network.traversal.connector import Connector
from protocol.identity import PeerId
from protocol.ports.byte_stream import ByteStream


class PeerServices:
    """The peer manager, the record exchange and the dial targets of one run of a node."""

    def __init__(
        self,
        host: Host,
        dht: Dht,
        connections: LiveConnections,
        book: AddressBook,
        own: OwnRecord,
        refusals: Refusals,
        open_stream: Callable[[PeerId, str], Awaitable[ByteStream]],
        connector: Connector,
        unreachable: UnreachablePeers,
        *,
        min_connections: int,
    ) -> None:
        self.changed = changed = ChangeSignal()
        self.targets = DialTargets(book, connections, own.addresses)
        self.exchange = RecordExchange(book, connections, dht, own, refusals, open_stream, changed)
        calls = DirectCalls(host, connections, self.targets)
        self.manager = PeerManager(
            dht,
            connections,
            book,
            calls,
            self.exchange,
            Detours(host, connector, calls, connections, unreachable),
            changed,
            min_connections=min_connections,
        )
        self._own = own

    def announce(self, addresses: Iterable[PeerAddress]) -> None:
        """Hand out other addresses of this node from now on, to some neighbours at once."""
        self._own.move(addresses)
        self.exchange.tell_now()
