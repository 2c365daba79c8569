"""The parts of a network that exist before, while and after it runs, put together.

`running_parts` has the others.
"""

from __future__ import annotations

from daemon.network.byte_counter import ByteCounter
from daemon.network.control_plane import ControlPlane
from daemon.network.error_boundary import Refusals
from daemon.network.graceful_close import BackgroundCloser
from daemon.network.libp2p.connection import MeasuredYamux
from daemon.network.libp2p.dht import Dht
from daemon.network.libp2p.gossip import Gossip
from daemon.network.libp2p.stream_server import StreamServer
from daemon.network.paths.admission import AdmittedPeers
from daemon.network.paths.path import TransportContext
from daemon.network.paths.selector import PathSelector, make_transports
from daemon.network.peers.address_book import AddressBook
from daemon.network.peers.entry_points import EntryPoints
from daemon.network.peers.live_connections import LiveConnections
from daemon.network.peers.priority import PeerPriority
from daemon.network.peers.unreachable import UnreachablePeers
from daemon.network.running_parts import WhileRunning
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import BulkCertificate
from daemon.network.traversal.expected import ExpectedConnections
from protocol.identity import PeerId, Signer
from protocol.network.reachability import Way, ways_to
from protocol.ports.endpoint import Endpoint


class PermanentParts:
    """What one node's network consists of, as far as that needs no socket."""

    def __init__(
        self, settings: NetworkSettings, secret: bytes, certificate: BulkCertificate
    ) -> None:
        """
        Args:
            secret: The 32-byte Ed25519 seed of this node's key.

        Raises:
            UserError: "JOIN" for a malformed join address.
        """
        self.settings = settings
        self.secret = secret
        self.signer = Signer(secret)
        self.certificate = certificate
        self.refusals = Refusals()
        self.control_traffic = ByteCounter()
        self.bulk_traffic = ByteCounter()
        self.closer = BackgroundCloser()
        self.running = running = WhileRunning()
        self.book = AddressBook(self.peer)
        self.entries = EntryPoints(
            settings.join, self.book, settings.read_texts, running.peers_changed
        )
        self.connections = LiveConnections(self._connection_ended)
        self.priority = PeerPriority(self.book, self.connections)
        matters, prefix_of = self.priority.matters, self.priority.prefix_of
        self.server = StreamServer(self.refusals, self.control_traffic, self.closer, matters)
        self.gossip = Gossip(
            self.peer,
            self.refusals,
            self.control_traffic,
            running.crash,
            self.priority.is_known,
            prefix_of,
            matters,
        )
        self.dht = Dht(running.learn, running.connect_at, matters, prefix_of)
        self.control = ControlPlane(running, self.control_traffic, self.closer)
        self.admitted = AdmittedPeers(matters)
        made = make_transports(self._transport_context())
        self.bulk_server = made.server
        self.paths = PathSelector(made.all, self._ways_to, settings.bandwidth)
        self.expected = ExpectedConnections()
        self.unreachable = UnreachablePeers()

    @property
    def peer(self) -> PeerId:
        """This node's id."""
        return self.signer.peer

    def _transport_context(self) -> TransportContext:
        return TransportContext(
            certificate=self.certificate,
            admitted=self.admitted,
            refusals=self.refusals,
            closer=self.closer,
            traffic=self.bulk_traffic,
            run_handler=self.server.run_handler,
            hosts_of=self.running.bulk_hosts,
            on_met=self.running.met_for_bulk,
            ways_to=self._ways_to,
            connect_around=self.running.connect_around,
            serve_preamble=self.running.serve_preamble,
            open_stream=self.control.open_stream,
            serve_stream=self.control.serve,
        )

    def _ways_to(self, endpoint: Endpoint) -> tuple[Way, ...]:
        met = self.connections.host_of(endpoint.peer)
        elsewhere = bool(met) and met not in endpoint.hosts
        return ways_to(self.running.reach, endpoint.reach, seen_elsewhere=elsewhere)

    def _connection_ended(self, connection: MeasuredYamux) -> None:
        self.gossip.connection_ended(connection)
