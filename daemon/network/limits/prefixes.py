"""Address prefixes: what one owner of addresses holds at little cost, and so what counts as one
source.

An IPv4 host buys its neighbours within a /24, and a home or a rented machine gets a whole /48 to
/64 of IPv6. Bitcoin Core groups peers by /16 and /32 (`netaddress.cpp`, GetGroup), py-libp2p's
routing table by /24 and /48. On loopback all peers share one prefix: no limit of a prefix may be so
small that a demo of 16 daemons on one machine reaches it.
"""

from __future__ import annotations

import ipaddress

PREFIX_BITS_V4 = 24
PREFIX_BITS_V6 = 48
LOOPBACK_PREFIX = "127.0.0.0/8"


def prefix_of(host: str) -> str:
    """The prefix that an address belongs to; the text itself for what is no address."""
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
