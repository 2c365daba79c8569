"""Addresses: multiaddrs as peers write them, and the hosts that a node hands out."""

from __future__ import annotations

import ipaddress
import socket
from typing import NamedTuple

from protocol.errors import PeerFault, UserError
from protocol.identity import PeerId, public_key_of

# /dns4/<host name>/tcp/<port>/p2p/<52 characters>, with room.
MAX_ADDRESS_CHARS = 160
# Names are resolved to IPv4 addresses, to IPv6 addresses, or to both.
FAMILIES = {
    "dns": socket.AF_UNSPEC,
    "dns4": socket.AF_INET,
    "dns6": socket.AF_INET6,
}
KINDS = ("ip4", "ip6", *FAMILIES)
# Every address of this machine: of IPv4 alone, or of both families.
WILDCARDS = ("0.0.0.0", "::")

# Connecting a UDP socket sends nothing. TEST-NET-1 (RFC 5737) is routed by default. The IPv6
# documentation prefix (RFC 3849) is often not, so a global address stands for the internet there.
_PROBED = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:4860:4860::8888"))


class PeerAddress(NamedTuple):
    """A multiaddr of TCP, with the peer expected there.

    The kinds are /ip4|ip6/HOST/tcp/PORT and /dns|dns4|dns6/NAME/tcp/PORT.
    """

    kind: str
    host: str
    port: int
    peer: PeerId

    @classmethod
    def of_host(cls, host: str, port: int, peer: PeerId) -> PeerAddress:
        """The address of a host: an IP address, a name, or the beginning /KIND/HOST."""
        _, kind, name = host.split("/")[:3] if host.startswith("/") else ("", "", host)
        return cls(kind or kind_of(name), name, port, peer)

    @property
    def transport(self) -> str:
        """The multiaddr without the peer."""
        return f"/{self.kind}/{self.host}/tcp/{self.port}"

    def __str__(self) -> str:
        return f"{self.transport}/p2p/{self.peer}"


def kind_of(host: str) -> str:
    """The multiaddr kind of an IP address or a name."""
    try:
        return f"ip{ipaddress.ip_address(host).version}"
    except ValueError:
        # Peers of earlier releases know names of this kind alone.
        return "dns4"


def parse_peer_address(text: str) -> PeerAddress:
    """Parse /ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT/p2p/PEER.

    Raises:
        PeerFault: "malformed" for any other text, "identity" for a bad peer id.
    """
    parts = text.split("/")
    if (
        len(text) > MAX_ADDRESS_CHARS
        or len(parts) != 7
        or parts[0]
        or (parts[3], parts[5]) != ("tcp", "p2p")
    ):
        raise PeerFault(
            "malformed", f"{text[:MAX_ADDRESS_CHARS]!r} is not /ip4/HOST/tcp/PORT/p2p/PEER"
        )
    _, kind, host, _, port, _, peer = parts
    host = _checked_host(kind, host)
    if not (
        port.isascii()
        and port.isdigit()
        and len(port) <= 5
        and 0 < int(port) < 65_536
        and port[0] != "0"
    ):
        raise PeerFault("malformed", f"{port!r} is not a TCP port")
    public_key_of(peer)
    return PeerAddress(kind, host, int(port), peer)


def _checked_host(kind: str, host: str) -> str:
    """The host in its usual writing. Raises `PeerFault`."""
    if kind in ("ip4", "ip6"):
        address = parse_ip(host)
        if address is None or f"ip{address.version}" != kind:
            raise PeerFault("malformed", f"{host!r} is not an IPv{kind[2:]} address")
        return str(address)
    if (
        kind not in FAMILIES
        or not host
        or not host.replace("-", "").replace(".", "").isalnum()
        or not host.isascii()
    ):
        raise PeerFault("malformed", f"{kind} {host!r} names neither an IP address nor a host")
    return host


def parse_ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a peer may name; None for a name, or where it means different things.

    An IPv4 address inside an IPv6 one would pass the rules for the other family. A scope such as
    %eth0 is a name of the machine that wrote it.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and (
        address.ipv4_mapped is not None or address.scope_id is not None
    ):
        return None
    return address


def plain_host(host: str) -> str:
    """The host of a socket's address: an IPv4 peer of a socket for both families is ::ffff:HOST."""
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def parse_join_address(text: str) -> PeerAddress:
    """Parse an address that the user gave. Raises `UserError("JOIN")`."""
    try:
        return parse_peer_address(text)
    except PeerFault as fault:
        raise UserError(
            "JOIN",
            f"{text!r} is not an address to join.",
            why=str(fault),
            fix="copy it from the other node's Ready line; "
            "it looks like /ip4/203.0.113.7/tcp/4001/p2p/12D3KooW...",
            exit_code=2,
        ) from None


def primary_hosts() -> tuple[str, ...]:
    """The addresses from which this machine calls the internet: of IPv4, then of IPv6.

    A machine without a route to the internet in a family has none in this family.
    """
    found: list[str] = []
    for family, target in _PROBED:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                host: str = probe.getsockname()[0]
        except OSError:
            continue
        address = ipaddress.ip_address(host.partition("%")[0])
        # A link-local address means nothing without the name of this machine's device.
        if not (address.is_loopback or address.is_link_local):
            found.append(host)
    return tuple(found)


def advertised_hosts(listen_host: str, advertise: tuple[str, ...]) -> tuple[str, ...]:
    """The hosts to hand out, the most useful first.

    What the user configured wins. A wildcard becomes the primary addresses and loopback.
    """
    if advertise:
        return advertise
    if listen_host not in (*WILDCARDS, ""):
        return (listen_host,)
    primary = primary_hosts()
    if listen_host == "0.0.0.0":
        primary = tuple(host for host in primary if kind_of(host) == "ip4")
    return (*primary, "127.0.0.1")
