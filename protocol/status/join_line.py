"""How others join this node, as far as it knows whether they can call it."""

from __future__ import annotations

import ipaddress

from protocol.status.node_records import NodeSummary


def join_line(you: NodeSummary) -> str:
    """What others type to join, after what it holds for; empty before the node has an address.

    A private address means nothing outside of its network, and an address that members could not
    call means nothing at all.
    """
    if not you.addresses:
        return ""
    public = [address for address in you.addresses if not is_local(address)]
    if you.reach.callable is False:
        return "others join at the address of a member that can be called, not at this node"
    if public:
        return f"others join with: hypergpud start --join {public[0]}"
    whose = "others" if is_loopback(you.addresses[0]) else "others in this network"
    return f"{whose} join with: hypergpud start --join {you.addresses[0]}"


def is_local(address: str) -> bool:
    """Whether a multiaddr has an IP address that means something in its own network alone."""
    host = _ip(address)
    return host is not None and any(
        host.version == network.version and host in network for network in LOCAL
    )


def is_loopback(address: str) -> bool:
    """Whether a multiaddr leads to this machine alone."""
    host = _ip(address)
    return host is not None and host.is_loopback


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    parts = address.split("/")
    try:
        return ipaddress.ip_address(parts[2])
    except (IndexError, ValueError):
        return None


# The same as protocol.network.reachability: reading a status must not load what that imports.
LOCAL = tuple(
    map(
        ipaddress.ip_network,
        (
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "::1/128",
            "fc00::/7",
            "fe80::/10",
        ),
    )
)
