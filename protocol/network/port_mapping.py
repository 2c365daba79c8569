"""What a home router does for a node: ports that it maps, and whether its address is any use.

Pure: addresses and times are arguments.
"""

from __future__ import annotations

import ipaddress
from typing import Literal

import msgspec

MappingState = Literal["off", "searching", "none", "mapped", "double_nat", "refused"]
"""How far the mapping of ports has come.

"off": the settings or the addresses leave nothing to map. "none": no router answers. "double_nat":
the router's own address is private, so that a mapped port leads nowhere. "refused": the router does
not map the ports.
"""

_SHARED = ipaddress.IPv4Network("100.64.0.0/10")


class PortMapping(msgspec.Struct, frozen=True, kw_only=True):
    """What the router maps now."""

    state: MappingState
    # One sentence for a person.
    reason: str
    # The router's address towards the internet; empty where it is not known.
    wan: str = ""
    # The ports that the router maps, the same outside as inside.
    ports: tuple[int, ...] = ()
    # "UPnP" or "NAT-PMP"; empty without a router.
    protocol: str = ""
    # When the lease ends, on the network's monotonic clock; None without one.
    lease_ends_s: float | None = None

    @property
    def advertised(self) -> str:
        """The host to hand out; empty where others cannot use it."""
        return self.wan if self.state == "mapped" else ""


def why_wan_is_useless(wan: str) -> str:
    """Why nobody outside can call a router at this address; empty where somebody can."""
    try:
        address = ipaddress.IPv4Address(wan)
    except ValueError:
        return (
            f"the router names no public IPv4 address of its own ({wan or 'none'}): it is offline,"
            " or another router stands between it and the internet"
        )
    if address in _SHARED:
        return (
            f"the router's address {wan} is shared by customers of the provider (100.64.0.0/10), so"
            " that a port mapped there leads nowhere"
        )
    if not address.is_global:
        return (
            f"the router's address {wan} is private: another router stands between it and the"
            " internet"
        )
    return ""
