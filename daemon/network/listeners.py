"""The sockets that a node listens on, and the addresses that it hands out for them."""

from __future__ import annotations

import trio

from daemon.network.addresses import PeerAddress, advertised_hosts
from daemon.network.settings import NetworkSettings
from daemon.network.tcp import listen
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
        self.control = listen(given.listen_host, given.listen_port, given.usual_port)
        # An observer has no bulk plane.
        self.bulk: trio.SocketListener | None = None
        if given.bulk:
            self.bulk = listen(given.listen_host, given.bulk_port)
        port: int = self.control.socket.getsockname()[1]
        self.addresses = tuple(
            PeerAddress.of_host(host, port, peer)
            for host in advertised_hosts(given.listen_host, given.advertise)
        )
        # The usual port, where another program has it now; else 0.
        wanted_another = given.usual_port not in (0, port) and not given.listen_port
        self.lost_port = given.usual_port if wanted_another else 0

    @property
    def bulk_address(self) -> tuple[tuple[str, ...], int]:
        """The hosts and the port of the bulk plane; no hosts and 0 without one."""
        if self.bulk is None:
            return (), 0
        hosts = tuple(address.host for address in self.addresses)[:MAX_HOSTS]
        return hosts, self.bulk.socket.getsockname()[1]
