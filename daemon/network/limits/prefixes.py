"""Address prefixes: the addresses that one owner holds at little cost count as one source.

An IPv4 host buys its neighbours within a /24. A home or a rented machine gets an IPv6 network of
/48 to /64. Bitcoin Core groups peers by /16 and /32 (`netaddress.cpp`, GetGroup). py-libp2p's
routing table groups them by /24 and /48.

On loopback all peers share one prefix, so every limit of a prefix must leave room for a demo of 16
daemons on one machine.
"""

from __future__ import annotations

import ipaddress

PREFIX_BITS_V4 = 24
PREFIX_BITS_V6 = 48
LOOPBACK_PREFIX = "127.0.0.0/8"


def prefix_of(host: str) -> str:
    """The prefix that an address belongs to; the text itself when it is not an address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    if address.is_loopback:
        return LOOPBACK_PREFIX
    bits = PREFIX_BITS_V4 if address.version == 4 else PREFIX_BITS_V6
    return str(ipaddress.ip_network((address, bits), strict=False))
