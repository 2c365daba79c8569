"""This node's own addresses while it runs: what the router adds, and who must hear of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import trio

from daemon.network.addresses import kind_of, primary_hosts
from daemon.network.libp2p.host import Host
from daemon.network.listeners import Listeners
from daemon.network.peers.services import PeerServices
from daemon.network.port_mapping.pinholes import Pinholes
from daemon.network.port_mapping.port_mapper import PortMapper
from daemon.network.settings import NetworkSettings
from protocol.network.port_mapping import PortMapping

NOT_RUNNING = PortMapping(state="off", reason="the network is not running")


class OwnAddresses:
    """Keeps the ports mapped, and hands out the router's address while they are."""

    def __init__(
        self,
        settings: NetworkSettings,
        listeners: Listeners,
        host: Host,
        peers: PeerServices,
        renew: Callable[[], None],
    ) -> None:
        """`renew` makes members call this node again, since more may arrive than before."""
        self._settings = settings
        self._listeners, self._host, self._peers = listeners, host, peers
        self._renew = renew
        self._mapper = PortMapper(listeners.ports, self._changed)
        self._pinholes = Pinholes(listeners.ports, _global_ipv6, renew)

    @property
    def mapping(self) -> PortMapping:
        """What the router maps now."""
        if why := self.why_not_mapped():
            return PortMapping(state="off", reason=why)
        return self._mapper.now

    @property
    def pinholes(self) -> PortMapping:
        """Whether the router lets calls over IPv6 in."""
        if why := self.why_no_pinholes():
            return PortMapping(state="off", reason=why)
        return self._pinholes.now

    def why_no_pinholes(self) -> str:
        """Why no router is asked for pinholes; empty where one is."""
        if not self._settings.upnp:
            return "network.upnp is false"
        host = self._settings.listen_host
        listens = host == "::" or (kind_of(host) == "ip6" and ipaddress.IPv6Address(host).is_global)
        return "" if listens else f"this node listens on {host}, which is no IPv6 address"

    def why_not_mapped(self) -> str:
        """Why no router is asked; empty where one is."""
        if not self._settings.upnp:
            return "network.upnp is false"
        if self._settings.advertise:
            return "network.advertise says where others call"
        if not any(map(_is_behind_router, self._listeners.hosts)):
            return "this machine has no private IPv4 address that it hands out"
        return ""

    async def run(self) -> None:
        """Keep the ports mapped until cancelled."""
        async with trio.open_nursery() as nursery:
            if not self.why_not_mapped():
                nursery.start_soon(self._mapper.run)
            if not self.why_no_pinholes():
                nursery.start_soon(self._pinholes.run)

    def _changed(self, mapping: PortMapping) -> None:
        if mapping.advertised == self._listeners.mapped_host:
            return
        self._listeners.mapped_host = mapping.advertised
        addresses = self._listeners.addresses
        self._renew()
        self._host.announce(addresses)
        self._peers.announce(
            [one for one in addresses if one.kind in self._settings.published_kinds]
        )


def _is_behind_router(host: str) -> bool:
    """Whether an address is one of a private IPv4 network."""
    if kind_of(host) != "ip4":
        return False
    address = ipaddress.IPv4Address(host)
    return not address.is_global and not address.is_loopback


def _global_ipv6() -> str:
    """The IPv6 address from which this machine calls the internet; empty without one."""
    found = (host for host in primary_hosts() if kind_of(host) == "ip6")
    return next((host for host in found if ipaddress.IPv6Address(host).is_global), "")
