"""Finds members of this node's runs on the same LAN by multicast DNS (RFC 6762, RFC 6763).

Each node announces a service `_hypergpu._tcp` with its port, its peer id and a tag of each run. The
tag is a digest of the run's id, so that a listener learns a run only if it knows it already. What
is found is a hint: the dial policy decides, and the peer proves its key.

zeroconf runs in threads of its own, which end with the session. They hand over what they hear
through a bounded queue.
"""

from __future__ import annotations

import ipaddress
import logging
import queue
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address

import trio
from zeroconf import Error, ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf

from daemon.network.addresses import PeerAddress, kind_of, primary_hosts
from daemon.system.offload import in_abandonable_thread
from protocol.digest import digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, public_key_of

SERVICE = "_hypergpu._tcp.local."
_DOMAIN = b"hypergpu/lan/1\0"
TAG_BYTES = 8
# Between two looks at what was heard, at the node's runs and at its addresses.
LOOK_S = 1.0
# Before a session begins anew that the system refused.
RETRY_S = 30.0
# Services heard between two looks. A LAN has fewer; more are a flood, and the rest is dropped.
MAX_HEARD = 64
# A service that answers its multicast question in this time is there.
DETAILS_MS = 2000
CLOSE_S = 2.0

_log = logging.getLogger(__name__)
# The library warns of every malformed packet that anybody on the LAN sends.
logging.getLogger("zeroconf").setLevel(logging.CRITICAL)


def tag_of(run: bytes) -> str:
    """What a node announces of a run."""
    return digest(_DOMAIN, run)[:TAG_BYTES].hex()


def service_of(peer: PeerId, host: str, port: int, tag: str) -> ServiceInfo:
    """The announcement of one run of a node."""
    name = f"{peer[-12:]}-{tag}"
    return ServiceInfo(
        SERVICE,
        f"{name}.{SERVICE}",
        addresses=[IPv4Address(host).packed],
        port=port,
        properties={"peer": peer, "run": tag},
        server=f"{name}.local.",
    )


def address_in(info: ServiceInfo, tags: frozenset[str]) -> PeerAddress | None:
    """The address that a service announces; None unless it is of one of our runs and private."""
    texts = {key: value for key, value in info.properties.items() if value is not None}
    hosts = info.parsed_addresses()
    try:
        peer, tag = texts[b"peer"].decode("ascii"), texts[b"run"].decode("ascii")
        public_key_of(peer)
        host = hosts[0]
    except (KeyError, IndexError, UnicodeDecodeError, PeerFault):
        return None
    if tag not in tags or not info.port or kind_of(host) != "ip4" or not is_lan_host(host):
        return None
    return PeerAddress("ip4", host, info.port, peer)


def is_lan_host(host: str) -> bool:
    """Whether an address is of a private IPv4 network."""
    if kind_of(host) != "ip4":
        return False
    address = ipaddress.IPv4Address(host)
    return address.is_private and not address.is_loopback and not address.is_link_local


class LanDiscovery:
    """Announces this node on its LAN, and passes on which members it hears there."""

    def __init__(
        self,
        peer: PeerId,
        port: int,
        runs: Callable[[], frozenset[bytes]],
        learn: Callable[[list[PeerAddress]], None],
        *,
        announces: bool,
    ) -> None:
        """
        Args:
            runs: Gives the runs that this node is in, or looks for.
            learn: Called with the addresses of other members.
            announces: Whether others may find this node. A node that only looks stays silent.
        """
        self._peer, self._port, self._announces = peer, port, announces
        self._runs, self._learn = runs, learn
        self._heard: queue.Queue[ServiceInfo] = queue.Queue(MAX_HEARD)

    async def run(self) -> None:
        """Announce and listen until cancelled."""
        while True:
            hosts = tuple(filter(is_lan_host, primary_hosts()))
            if hosts and self._runs():
                try:
                    await self._session(hosts)
                except (OSError, Error) as error:
                    _log.info("No members can be found on the LAN: %s", error)
                    await trio.sleep(RETRY_S)
            await trio.sleep(LOOK_S)

    async def _session(self, hosts: tuple[str, ...]) -> None:
        """Announce and listen at these addresses, until this machine has others."""
        responder = await in_abandonable_thread(partial(Zeroconf, interfaces=list(hosts)))
        try:
            await in_abandonable_thread(
                partial(ServiceBrowser, responder, SERVICE, handlers=[self._hear])
            )
            announced: frozenset[str] = frozenset()
            while tuple(filter(is_lan_host, primary_hosts())) == hosts:
                tags = frozenset(map(tag_of, self._runs()))
                for tag in tags - announced if self._announces else ():
                    info = service_of(self._peer, hosts[0], self._port, tag)
                    await in_abandonable_thread(
                        partial(responder.register_service, info, allow_name_change=True)
                    )
                announced |= tags
                self._pass_on(tags)
                await trio.sleep(LOOK_S)
        finally:
            with trio.CancelScope(deadline=trio.current_time() + CLOSE_S, shield=True):
                await in_abandonable_thread(responder.close)

    def _hear(
        self,
        zeroconf: Zeroconf,
        service_type: str,
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        """Ask for the details of a service that appeared. Runs in the library's thread."""
        if state_change is ServiceStateChange.Removed:
            return
        info = zeroconf.get_service_info(service_type, name, timeout=DETAILS_MS)
        if info is not None:
            try:
                self._heard.put_nowait(info)
            except queue.Full:
                return

    def _pass_on(self, tags: frozenset[str]) -> None:
        found: list[PeerAddress] = []
        while not self._heard.empty():
            address = address_in(self._heard.get_nowait(), tags)
            if address is not None and address.peer != self._peer:
                found.append(address)
        if found:
            self._learn(found)
