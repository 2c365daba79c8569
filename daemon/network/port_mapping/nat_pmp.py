"""A router that speaks NAT-PMP (RFC 6886): small UDP requests to the default gateway."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

import trio

from daemon.network.port_mapping.gateway import GatewayLost, GatewayRefused

PORT = 5351
# RFC 6886, section 3.1, begins with 0.25 s and doubles nine times, a minute in all. A router on the
# LAN answers the first request.
TRIES_S = (0.25, 0.5, 1.0)
_ADDRESS, _MAP_TCP, _ANSWER = 0, 2, 128
# Result codes, section 3.5.
_RESULTS = {
    1: "it speaks another version of NAT-PMP",
    2: "the router's owner allows no mapping",
    3: "the router has no connection to the internet",
    4: "the router's table is full",
    5: "it does not know the request",
}


def encode_map(port: int, lease_s: int) -> bytes:
    """A request to map a TCP port to the same port outside. Without a lease, to remove it."""
    return struct.pack("!BBHHHI", 0, _MAP_TCP, 0, port, port if lease_s else 0, lease_s)


def decode_answer(data: bytes, request: int, size: int) -> bytes:
    """The bytes behind the head of an answer.

    Args:
        request: The operation that was asked for.
        size: The bytes of a whole answer.

    Raises:
        ValueError: When it is not the answer to this request.
        GatewayRefused: When the router refuses.
    """
    if len(data) < 8 or data[0] != 0 or data[1] != _ANSWER + request:
        raise ValueError("not an answer to this request")
    (result,) = struct.unpack("!H", data[2:4])
    if result:
        raise GatewayRefused(_RESULTS.get(result, f"the router answers with the error {result}"))
    if len(data) < size:
        raise ValueError(f"an answer of {len(data)} bytes")
    return data[8:size]


class NatPmpGateway:
    """The default gateway, which answers NAT-PMP."""

    protocol = "NAT-PMP"

    def __init__(self, host: str, port: int = PORT) -> None:
        self._host, self._port = host, port

    async def wan_address(self) -> str:
        return str(ipaddress.IPv4Address(await self._ask(bytes((0, _ADDRESS)), _ADDRESS, 12)))

    async def holds(self, port: int) -> bool:
        """Always false: no request asks for a mapping, so the mapper renews it each time."""
        await trio.lowlevel.checkpoint()
        return False

    async def map(self, port: int, lease_s: int) -> int:
        inside, outside, lease = struct.unpack(
            "!HHI", await self._ask(encode_map(port, lease_s), _MAP_TCP, 16)
        )
        if (inside, outside) != (port, port):
            await self.unmap(port)
            raise GatewayRefused("another machine has this port at the router")
        return int(lease)

    async def unmap(self, port: int) -> None:
        await self._ask(encode_map(port, 0), _MAP_TCP, 16)

    async def _ask(self, request: bytes, operation: int, size: int) -> bytes:
        """Ask until an answer comes. Raises `GatewayLost` or `GatewayRefused`."""
        try:
            with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as socket:
                await socket.connect((self._host, self._port))
                for wait_s in TRIES_S:
                    await socket.send(request)
                    with trio.move_on_after(wait_s):
                        while True:
                            try:
                                return decode_answer(await socket.recv(64), operation, size)
                            except ValueError:
                                # Another program's packet, or an older answer.
                                continue
        except OSError as error:
            raise GatewayLost(f"{self._host}: {error}") from error
        raise GatewayLost(f"{self._host} did not answer")


def default_gateway(table: Path = Path("/proc/net/route")) -> str:
    """The default gateway of IPv4, from the kernel's table; empty where there is none."""
    try:
        lines = table.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return ""
    for line in lines:
        fields = line.split()
        if len(fields) > 7 and fields[1] == "00000000" and fields[7] == "00000000":
            # Hexadecimal, in the byte order of the machine.
            return str(ipaddress.IPv4Address(struct.pack("=I", int(fields[2], 16))))
    return ""


async def find_nat_pmp() -> NatPmpGateway | None:
    """The default gateway, if it speaks NAT-PMP; else None."""
    host = default_gateway()
    if not host or host == "0.0.0.0":
        return None
    gateway = NatPmpGateway(host)
    try:
        await gateway.wan_address()
    except GatewayLost:
        return None
    except GatewayRefused:
        # It answers, and says later why it maps nothing.
        return gateway
    return gateway
