"""The settings of the real network."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from daemon.network.addresses import KINDS
from daemon.network.dns_addresses import ReadTexts, read_texts
from daemon.network.paths.paced_stream import Bandwidth
from daemon.network.peers.own_record import KeyObservation
from daemon.network.traversal.relay import RelaySettings


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's configuration says about its network."""

    listen_host: str = "::"
    # 0: `usual_port` where it is free, else any free port.
    listen_port: int = 0
    usual_port: int = 0
    # 0: any free port.
    bulk_port: int = 0
    # Bulk streams come in at the port of control connections.
    one_port: bool = False
    # Multiaddrs of peers to connect to, and names in DNS (/dnsaddr/NAME).
    join: tuple[str, ...] = ()
    # Reads the TXT records of a name.
    read_texts: ReadTexts = read_texts
    # Hosts to hand out to others, also as /KIND/HOST; empty: the network works them out.
    advertise: tuple[str, ...] = ()
    # Look for members of the run on the same LAN, and let them find this node.
    mdns: bool = False
    # A run to look for that this node is not in yet.
    wanted_run: bytes = b""
    # Ask the home router to send the ports here.
    upnp: bool = False
    # Whether members of earlier releases may be in the run. They refuse the whole record of a peer
    # that has an IPv6 address in it.
    earlier_releases: bool = False
    min_connections: int = 8
    # An observer has no bulk plane: nothing listens for bulk streams.
    bulk: bool = True
    # What this node relays for others. 0 bits a second: no cap.
    relay: RelaySettings = RelaySettings()
    # What bulk streams may use, all together.
    bandwidth: Bandwidth = Bandwidth()
    # Numbers that grow within a run of the daemon and from one run to the next.
    serials: Callable[[], int] = time.time_ns
    # Called with each record of this node's key that this process did not sign.
    on_key_observed: Callable[[KeyObservation], None] = lambda _observation: None

    @property
    def published_kinds(self) -> tuple[str, ...]:
        """The kinds of addresses that this node's signed record may have."""
        return ("ip4", "dns4") if self.earlier_releases else KINDS
