"""Checks of single settings, for values that their type allows and their meaning does not.

Each check raises `ValueError`, whose text says what a right value is.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from protocol.limits.hours import parse_hours

# One megabyte in 80 s, as slow as the slowest links that people have.
LEAST_MBPS = 0.1
# Idle processors have 30 to 50 C. Below, training would never begin.
LEAST_CELSIUS = 50.0

_EXAMPLE_ADDRESS = "/ip4/203.0.113.7/tcp/4001/p2p/12D3KooW..."
# The most GPUs in machines that one can rent. Each device has a worker process and its memory.
MAX_DEVICES = 16
_KINDS = "ip4|ip6|dns|dns4|dns6"
_JOINED = re.compile(rf"/({_KINDS})/[^/\s]+/tcp/[0-9]{{1,5}}/p2p/[0-9A-Za-z]+")
_DNSADDR = re.compile(r"/dnsaddr/[A-Za-z0-9._-]+(/p2p/[0-9A-Za-z]+)?")
_ADVERTISED = re.compile(rf"/({_KINDS})/([^/\s]+)(/.*)?")


def check_name(name: str) -> None:
    """Accept printable text."""
    if not name.isprintable():
        raise ValueError(
            "a name is printable text, without control characters and marks that change the"
            " writing direction"
        )


def check_listen_host(host: str) -> None:
    """Accept IP addresses."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(
            f"{host!r} is not an IP address; :: listens on all addresses of this machine, 0.0.0.0"
            " on all IPv4 addresses"
        ) from None


def check_layers(layers: str) -> None:
    """Accept a range of layers, or a number of them."""
    if layers and not re.fullmatch(r"\d{1,6}(:\d{1,6})?", layers):
        raise ValueError(f"{layers!r} is neither a range A:B nor a number of layers")


def check_hours(text: str) -> None:
    """Accept the empty text and hours of the week."""
    parse_hours(text)


def check_rate(mbps: float) -> None:
    """Accept 0, and rates at which a round of a small model ends."""
    if 0 < mbps < LEAST_MBPS:
        raise ValueError(f"the least rate is {LEAST_MBPS:g}; 0 means no limit")


def check_temperature(celsius: float) -> None:
    """Accept 0, and temperatures that an idle processor stays below."""
    if 0 < celsius < LEAST_CELSIUS:
        raise ValueError(f"the least temperature is {LEAST_CELSIUS:g}; 0 means no limit")


def check_join(addresses: tuple[str, ...]) -> None:
    """Accept whole addresses of nodes, which end with the peer key, and /dnsaddr names."""
    for address in addresses:
        if _DNSADDR.fullmatch(address):
            continue
        if named := re.fullmatch(r"([\w.-]+):(\d+)", address):
            host, port = named.groups()
            whole = f"/{_kind(host)}/{host}/tcp/{port}/p2p/12D3KooW..."
            raise ValueError(
                f"{address!r} is not a multiaddr, and names no peer key: copy the whole address of"
                f" the node, such as {whole}"
            )
        if not address.startswith("/"):
            raise ValueError(
                f"{address!r} is not a multiaddr: copy the whole address that the node prints when"
                f" it is ready, such as {_EXAMPLE_ADDRESS}"
            )
        if "/p2p/" not in address:
            raise ValueError(
                f"{address!r} names no peer key, so that anyone could answer there: copy the whole"
                " address, with its /p2p/12D3KooW... at the end"
            )
        if not _JOINED.fullmatch(address):
            raise ValueError(f"{address!r} is not a node's address, such as {_EXAMPLE_ADDRESS}")


def check_advertise(addresses: tuple[str, ...]) -> None:
    """Accept multiaddrs that begin with a host."""
    for address in addresses:
        parts = _ADVERTISED.fullmatch(address)
        if parts is None or not _fits(parts[1], parts[2]):
            raise ValueError(f"{address!r} names no host; a right one is /ip4/203.0.113.7/tcp/4001")


def check_device(device: str) -> None:
    """Accept the names of processors, or several processors with commas between them."""
    names = [name.strip() for name in device.split(",")]
    if len(names) > MAX_DEVICES:
        raise ValueError(f"{len(names)} devices are named, and a node takes at most {MAX_DEVICES}")
    for name in names:
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name):
            raise ValueError(f"{name!r} is not one of auto, cpu, cuda, cuda:0, cuda:1, ...")
        if len(names) > 1 and name in ("auto", "cuda"):
            raise ValueError(f"{name!r} names no single device: write cuda:0,cuda:1 or cpu,cuda:0")
        if name != "cpu" and names.count(name) > 1:
            raise ValueError(f"{name!r} is named {names.count(name)} times: name each GPU once")


def check_observer_host(host: str) -> None:
    """Accept host names and addresses."""
    if not host or any(letter.isspace() or letter == "/" for letter in host):
        raise ValueError(
            f"{host!r} is not an address: 127.0.0.1 serves this machine only, 0.0.0.0 all addresses"
            " of this machine"
        )


def check_origins(origins: tuple[str, ...]) -> None:
    """Accept origins as browsers send them: scheme, host, and a port that is not the usual one."""
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}":
            raise ValueError(f"{origin!r} is not an origin such as https://example.org")


def check_url(url: str) -> None:
    """Accept the empty text and http(s) URLs."""
    if url and not url.startswith(("http://", "https://")):
        raise ValueError("url begins with http:// or https://")


def check_rpc(endpoints: tuple[str, ...]) -> None:
    """Accept http(s) URLs. The messages do not repeat an endpoint, which may hold a secret."""
    for endpoint in endpoints:
        if not endpoint.startswith(("http://", "https://")):
            raise ValueError("each endpoint of rpc begins with http:// or https://")
        if not _has_host_and_port(endpoint):
            raise ValueError("an endpoint of rpc has no host, or an impossible port")


def _kind(host: str) -> str:
    return "ip4" if host.replace(".", "").isdigit() else "dns4"


def _fits(kind: str, host: str) -> bool:
    """Whether an address is of the family that its kind names; names are not checked."""
    if kind.startswith("dns"):
        return True
    try:
        return f"ip{ipaddress.ip_address(host).version}" == kind
    except ValueError:
        return False


def _has_host_and_port(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # Reading `port` raises `ValueError` for an impossible port.
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
