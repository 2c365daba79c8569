"""Limits for each client address: requests a second, and connections at once. Pure.

A client is an address; IPv6 clients are a /64, which one household or server has. Programs on this
machine may be a proxy that carries many readers, so loopback's usual addresses get what the whole
server takes.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

from protocol.rate_limiter import RateLimiter

REQUESTS_PER_S, BURST = 50.0, 200.0
"""Requests of one address. A page asks twice a second, and a script may read a history at once."""

CONNECTIONS = 64
"""Connections of one address: ten browsers behind one router."""

PROXY_ADDRESSES = frozenset({"127.0.0.1", "::1"})
KEPT_ADDRESSES = 4096
"""Addresses whose rate is remembered; the one used longest ago goes first."""

IPV6_BITS = 64


def client_of(address: str) -> str:
    """Return what counts as one client."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    if parsed.is_loopback:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, IPV6_BITS), strict=False))


class ClientLimits:
    """What each client address has used. `now` is in monotonic seconds."""

    def __init__(self) -> None:
        self._rates: OrderedDict[str, RateLimiter] = OrderedDict()
        self._connections: dict[str, int] = {}

    def connect(self, address: str) -> bool:
        """Count a connection; False where the client has enough, and then it is not counted."""
        client = client_of(address)
        used = self._connections.get(client, 0)
        if client not in PROXY_ADDRESSES and used >= CONNECTIONS:
            return False
        self._connections[client] = used + 1
        return True

    def disconnect(self, address: str) -> None:
        """Count the end of a connection that `connect` counted."""
        client = client_of(address)
        left = self._connections.get(client, 0) - 1
        if left > 0:
            self._connections[client] = left
        else:
            self._connections.pop(client, None)

    def request(self, address: str, now: float) -> bool:
        """Count a request; False where the client asks too often."""
        client = client_of(address)
        if client in PROXY_ADDRESSES:
            return True
        limiter = self._rates.get(client)
        if limiter is None:
            limiter = self._rates[client] = RateLimiter(per_s=REQUESTS_PER_S, burst=BURST, now=now)
            if len(self._rates) > KEPT_ADDRESSES:
                self._rates.popitem(last=False)
        self._rates.move_to_end(client)
        return limiter.spend(1.0, now)
