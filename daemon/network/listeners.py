"""The sockets that a node listens on, and the addresses that it hands out for them."""

from __future__ import annotations

from daemon.network.addresses import PeerAddress, advertised_hosts
from daemon.network.settings import NetworkSettings
from daemon.network.shared_port import SharedPort
from daemon.network.tcp import StreamListener, listen
from protocol.identity import PeerId
from protocol.ports.endpoint import MAX_HOSTS


class Listeners:
    """The listening sockets of one run of a node."""

    def __init__(self, settings: NetworkSettings, peer: PeerId) -> None:
        """Bind the sockets.

        Raises:
            UserError: "PORT" when a port cannot be used.
        """
        given = settings
        bound = listen(given.listen_host, given.listen_port, given.usual_port)
        self.port: int = bound.socket.getsockname()[1]
        self.bulk_port = 0
        # Divides the connections at one port; None where each plane has its own.
        self.shared: SharedPort | None = None
        self.control: StreamListener = bound
        # An observer has no bulk plane.
        self.bulk: StreamListener | None = None
        if given.bulk and given.one_port:
            self.shared = SharedPort(bound)
            self.control, self.bulk = self.shared.control, self.shared.bulk
            self.bulk_port = self.port
        elif given.bulk:
            self.bulk = own = listen(given.listen_host, given.bulk_port)
            self.bulk_port = own.socket.getsockname()[1]
        self._peer = peer
        self.hosts = advertised_hosts(given.listen_host, given.advertise)
        # The home router's address, while the router sends our ports here.
        self.mapped_host = ""
        # The usual port, where another program has it now; else 0.
        wanted_another = given.usual_port not in (0, self.port) and not given.listen_port
        self.lost_port = given.usual_port if wanted_another else 0

    @property
    def addresses(self) -> tuple[PeerAddress, ...]:
        """The addresses to hand out now, the most useful first."""
        hosts = dict.fromkeys((self.mapped_host, *self.hosts) if self.mapped_host else self.hosts)
        return tuple(PeerAddress.of_host(host, self.port, self._peer) for host in hosts)

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports at which others call."""
        return tuple(dict.fromkeys((self.port, self.bulk_port)))

    @property
    def bulk_address(self) -> tuple[tuple[str, ...], int]:
        """The hosts and the port of the bulk plane; no hosts and 0 without one."""
        if self.bulk is None:
            return (), 0
        hosts = tuple(address.host for address in self.addresses)[:MAX_HOSTS]
        return hosts, self.bulk_port
