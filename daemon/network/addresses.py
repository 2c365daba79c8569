"""Addresses: the IPv4 hosts to advertise, and multiaddrs as peers write them."""

from __future__ import annotations

import ipaddress
import socket
from typing import NamedTuple

from protocol.errors import PeerFault, UserError
from protocol.identity import PeerId, public_key_of

# /dns4/<host name>/tcp/<port>/p2p/<52 characters>, with room.
MAX_ADDRESS_CHARS = 160


class PeerAddress(NamedTuple):
    """A multiaddr of one of the two kinds we use, with the peer expected there.

    The kinds are /ip4/HOST/tcp/PORT and /dns4/HOST/tcp/PORT.
    """

    kind: str
    host: str
    port: int
    peer: PeerId

    @classmethod
    def of_host(cls, host: str, port: int, peer: PeerId) -> PeerAddress:
        """The address of a host that is an IPv4 address or a name."""
        is_ip = host.replace(".", "").isdigit()
        return cls("ip4" if is_ip else "dns4", host, port, peer)

    @property
    def transport(self) -> str:
        """The multiaddr without the peer."""
        return f"/{self.kind}/{self.host}/tcp/{self.port}"

    def __str__(self) -> str:
        return f"{self.transport}/p2p/{self.peer}"


def parse_peer_address(text: str) -> PeerAddress:
    """Parse /ip4|dns4/HOST/tcp/PORT/p2p/PEER.

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
    if kind == "ip4":
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise PeerFault("malformed", f"{host!r} is not an IPv4 address") from None
    elif (
        kind != "dns4"
        or not host
        or not host.replace("-", "").replace(".", "").isalnum()
        or not host.isascii()
    ):
        raise PeerFault("malformed", f"{text!r} names neither an IPv4 address nor a host")
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


def primary_host() -> str | None:
    """The IPv4 address of the interface towards the internet; None on a machine without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a UDP socket sends nothing. TEST-NET-1 (RFC 5737) is routed by default.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        host: str = probe.getsockname()[0]
        return host


def advertised_hosts(listen_host: str, advertise: tuple[str, ...]) -> tuple[str, ...]:
    """The hosts to hand out, the most useful first.

    What the user configured wins. A wildcard becomes the primary address and loopback.
    """
    if advertise:
        return advertise
    if listen_host not in ("0.0.0.0", ""):
        return (listen_host,)
    primary = primary_host()
    hosts = [primary] if primary and not primary.startswith("127.") else []
    return (*hosts, "127.0.0.1")
