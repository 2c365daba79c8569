"""Which advertised hosts are no addresses of this machine."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import trio

from daemon.network.addresses import FAMILIES, PeerAddress, parse_ip

# A name server that does not answer within this time is left out: the node runs without it.
LOOK_UP_S = 3.0


async def elsewhere(advertised: Sequence[PeerAddress]) -> tuple[str, ...]:
    """The IP addresses behind advertised hosts, without those of this machine.

    A machine with several addresses may advertise another one than it calls from, and its own
    addresses need no proof that they lead here.
    """
    found: list[str] = []
    for address in advertised:
        found += [host for host in await _resolved(address) if not is_own(host)]
    return tuple(dict.fromkeys(found))


async def _resolved(address: PeerAddress) -> list[str]:
    """The IP addresses of a host; none where no name server knows it now."""
    if parse_ip(address.host) is not None:
        return [address.host]
    family = FAMILIES.get(address.kind, socket.AF_UNSPEC)
    try:
        with trio.move_on_after(LOOK_UP_S):
            answers = await trio.socket.getaddrinfo(
                address.host, None, family, trio.socket.SOCK_STREAM
            )
            return [str(answer[4][0]) for answer in answers]
    except OSError:
        return []
    return []


def is_own(host: str) -> bool:
    """Whether an IP address is one of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # Only an address of this machine can be bound. Nothing is sent.
            probe.bind((host, 0))
        except OSError:
            return False
    return True
