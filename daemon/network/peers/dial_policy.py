"""Decides where a node connects because others told it to, and how often.

A stranger signs a record with a key that it made a moment ago, and names any address in it. So a
signature says who speaks and proves nothing about the address. These rules keep a node from being
used as a tool against others:

- Addresses that the user named are free, and so are hosts at which the peer proved its key.
- Every other address is tried on behalf of the peer that named it. It must be an IP address, since
  names would be resolved for strangers. Its port must be 443, or 1024 or above: no mail. Its host
  must be in a scope in which this node hears the network.
- The internet is always in scope. Loopback is in scope where this node is known on loopback alone,
  as in a demo. A private network is in scope where this node has an address in it or hears a peer
  in it. Link-local, multicast and reserved addresses never are.
- A try on behalf of others is charged to three rate limiters: one for the peer that named the
  address, one for the target's prefix, and one for all. A connection that proves the key gives the
  charge back, so that true addresses cost nothing.

Pure: time is an argument.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence

from daemon.network.addresses import PeerAddress, parse_ip
from daemon.network.limits.prefixes import LOOPBACK_PREFIX, prefix_of
from protocol.identity import PeerId
from protocol.rate_limiter import RateLimiter, RateLimiters

# Lower ports belong to services of the system.
MIN_PORT = 1024
# The one lower port at which nodes may be: many firewalls let nothing else out.
HTTPS_PORT = 443
# Unproven addresses of one peer per dial. Most peers name their internet and their local address.
TRIED_OF_PEER = 2
# Tries in all that led nowhere: a small swarm's worth at once, then one in five seconds.
TRIES_PER_S, TRIES_AT_ONCE = 0.2, 16.0
# Bulk streams go to all members of a plan at one moment.
BULK_TRIES_AT_ONCE = 64.0
# Tries for one source. Half of the members that it handed out may be gone.
SOURCE_TRIES_PER_S, SOURCE_TRIES_AT_ONCE = 0.05, 8.0
# Tries to one prefix that is not loopback, so that no network is scanned through this node.
PREFIX_TRIES_PER_S, PREFIX_TRIES_AT_ONCE = 0.05, 4.0

_PRIVATE = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"),
    )
)
# Addresses that carry an IPv4 address: 6to4, Teredo, NAT64 (RFC 6052).
_CARRIERS = tuple(map(ipaddress.IPv6Network, ("2002::/16", "2001::/32", "64:ff9b::/96")))
# The network around an address that counts as the same place: a LAN.
_LAN_BITS = {4: 24, 6: 64}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_node_port(port: int) -> bool:
    """Whether a node calls this port for others: none of the system's services but HTTPS."""
    return port >= MIN_PORT or port == HTTPS_PORT


def carries_ipv4(address: Address) -> bool:
    """Whether an IPv6 address holds an IPv4 one, which would pass the rules for IPv6."""
    return any(address in network for network in _CARRIERS)


def lan_of(address: Address) -> Network:
    """The network around an address: a /24, for IPv6 a /64."""
    return ipaddress.ip_network((address, _LAN_BITS[address.version]), strict=False)


def network_of(address: Address) -> Network:
    """The private network that an address belongs to; the network around other addresses."""
    named = next((network for network in _PRIVATE if address in network), None)
    return named or lan_of(address)


class DialPolicy:
    """The rules of one node, and the rate limiters of its tries."""

    def __init__(
        self,
        own_hosts: Sequence[str],
        heard: Callable[[], Iterable[str]],
        at_once: float = TRIES_AT_ONCE,
    ) -> None:
        """
        Args:
            own_hosts: The hosts under which this node is known.
            heard: Gives the hosts of connected peers and those that the user named.
            at_once: How many tries may lead nowhere at once.
        """
        own = [address for host in own_hosts if (address := parse_ip(host)) is not None]
        self._only_loopback = bool(own) and all(address.is_loopback for address in own)
        self._beside = [lan_of(address) for address in own if not address.is_loopback]
        self._heard = heard
        self._in_all = RateLimiter(per_s=TRIES_PER_S, burst=at_once, now=0.0)
        self._of_source = RateLimiters(per_s=SOURCE_TRIES_PER_S, burst=SOURCE_TRIES_AT_ONCE)
        self._of_prefix = RateLimiters(per_s=PREFIX_TRIES_PER_S, burst=PREFIX_TRIES_AT_ONCE)

    def why_not(self, host: str, port: int) -> str:
        """Why this address is not tried on behalf of others; empty when it may be."""
        address = parse_ip(host)
        if address is None:
            return f"{host} is a name, and only names that the user gave are resolved"
        if not is_node_port(port):
            return f"port {port} of {host} belongs to the system"
        if address.is_loopback:
            return "" if self._only_loopback else f"{host} is this machine itself"
        if (
            address.is_link_local
            or address.is_multicast
            or address.is_unspecified
            or address.is_reserved
            or carries_ipv4(address)
        ):
            return f"{host} is not an address that a peer can have"
        if address.is_global or self._is_near(address):
            return ""
        return f"{host} is in a private network in which no peer was heard"

    def _is_near(self, address: Address) -> bool:
        if any(address in network for network in self._beside):
            return True
        network = network_of(address)
        return any(
            (heard := parse_ip(host)) is not None and heard in network for host in self._heard()
        )

    def spend(self, host: str, source: PeerId, now: float) -> bool:
        """Charge a try of an address that `source` named. False when it is not allowed now."""
        buckets = self._buckets(host, source, now)
        if any(bucket.left(now) < 1.0 for bucket in buckets):
            return False
        for bucket in buckets:
            bucket.spend(1.0, now)
        return True

    def proved(self, host: str, source: PeerId, now: float) -> None:
        """Give back what a try cost, since the peer proved its key at this host."""
        for bucket in self._buckets(host, source, now):
            bucket.give_back(1.0, now)

    def _buckets(self, host: str, source: PeerId, now: float) -> list[RateLimiter]:
        prefix = prefix_of(host)
        of_prefix = [] if prefix == LOOPBACK_PREFIX else [self._of_prefix.of(prefix, now)]
        return [self._in_all, self._of_source.of(source, now), *of_prefix]


def is_free(address: PeerAddress, named: bool, proven: Iterable[str]) -> bool:
    """Whether a try of this address costs nothing.

    `named` says that the user gave the address; `proven` are the hosts at which its peer was met.
    """
    return named or address.host in proven
