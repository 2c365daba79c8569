"""A router that speaks PCP (RFC 6887) over IPv6: it lets calls from outside in to this machine.

With IPv6 nothing is translated. The router only opens its firewall for a port of one address, which
is called a pinhole.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct
from pathlib import Path
from typing import NamedTuple

import trio

from daemon.network.port_mapping.gateway import GatewayLost, GatewayRefused

PORT = 5351
# RFC 6887, section 8.1.1, begins with 3 s. A router on the LAN answers the first request.
TRIES_S = (0.5, 1.0, 2.0)
NONCE_BYTES = 12
_VERSION, _MAP, _ANSWER, _TCP = 2, 1, 128, 6
ANSWER_BYTES = 60
# Result codes, section 7.4.
_RESULTS = {
    1: "it speaks another version of PCP",
    2: "the router's owner lets nothing in",
    8: "the router's table is full",
    9: "the router opens nothing for TCP",
    11: "another machine has this port at the router",
    12: "another router stands between this machine and the one that answers",
}


class PcpGateway(NamedTuple):
    """The default gateway of IPv6: a link-local address, and the index of its network device."""

    host: str
    device: int


def encode_map(own: str, port: int, nonce: bytes, lease_s: int) -> bytes:
    """A request to let TCP calls in to a port of the address `own`; without a lease, to stop.

    Args:
        nonce: `NONCE_BYTES` bytes. Only who knows them can renew or remove the pinhole.
    """
    address = ipaddress.IPv6Address(own).packed
    head = struct.pack("!BBHI", _VERSION, _MAP, 0, lease_s) + address
    return head + nonce + struct.pack("!B3xHH", _TCP, port, port) + address


def decode_map(data: bytes, port: int, nonce: bytes) -> int:
    """The lease that an answer grants, in seconds.

    Raises:
        ValueError: When it is not the answer to this request.
        GatewayRefused: When the router refuses.
    """
    if len(data) < 4 or data[0] != _VERSION or data[1] != _ANSWER + _MAP:
        raise ValueError("not an answer to this request")
    if data[3]:
        # An error may come without the rest.
        raise GatewayRefused(_RESULTS.get(data[3], f"the router answers with the error {data[3]}"))
    if len(data) < ANSWER_BYTES or data[24:36] != nonce:
        raise ValueError("not an answer to this request")
    inside, outside = struct.unpack("!HH", data[40:44])
    if (inside, outside) != (port, port):
        raise ValueError("an answer for another port")
    (lease_s,) = struct.unpack("!I", data[4:8])
    return int(lease_s)


async def ask_map(gateway: PcpGateway, own: str, port: int, nonce: bytes, lease_s: int) -> int:
    """Open a pinhole, renew it, or close it.

    Returns:
        The lease that the router grants, in seconds.

    Raises:
        GatewayLost: The router does not answer.
        GatewayRefused: It refuses.
    """
    request = encode_map(own, port, nonce, lease_s)
    try:
        with trio.socket.socket(trio.socket.AF_INET6, trio.socket.SOCK_DGRAM) as asking:
            # The router compares the sender with the address in the request.
            await asking.bind((own, 0))
            await asking.connect((gateway.host, PORT, 0, gateway.device))
            for wait_s in TRIES_S:
                await asking.send(request)
                with trio.move_on_after(wait_s):
                    while True:
                        try:
                            return decode_map(await asking.recv(1100), port, nonce)
                        except ValueError:
                            # Another program's packet, or an older answer.
                            continue
    except OSError as error:
        raise GatewayLost(f"{gateway.host}: {error}") from error
    raise GatewayLost(f"{gateway.host} does not answer PCP")


def default_gateway_6(table: Path = Path("/proc/net/ipv6_route")) -> PcpGateway | None:
    """The default gateway of IPv6, from the kernel's table; None where there is none."""
    try:
        lines = table.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        if len(fields) < 10 or fields[0] != "0" * 32 or fields[1] != "00":
            continue
        via = ipaddress.IPv6Address(bytes.fromhex(fields[4]))
        try:
            device = socket.if_nametoindex(fields[9])
        except OSError:
            continue
        if not via.is_unspecified:
            return PcpGateway(str(via), device)
    return None


def new_nonce() -> bytes:
    """A nonce that nobody guesses."""
    return secrets.token_bytes(NONCE_BYTES)
