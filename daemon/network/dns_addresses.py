"""Entry points that a domain's owner publishes in DNS: TXT records with multiaddrs.

/dnsaddr/NAME stands for the records of `_dnsaddr.NAME` that begin with `dnsaddr=`, as libp2p has
them (https://github.com/multiformats/multiaddr/blob/master/protocols/DNSADDR.md). A record may name
another /dnsaddr. /dnsaddr/NAME/p2p/PEER stands for the records of this peer alone.

Anyone who can answer for the name can name other peers. What these peers say is verified as what
any other peer says.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import dns.asyncresolver
import dns.exception
import trio

from daemon.network.addresses import PeerAddress, parse_peer_address
from protocol.errors import PeerFault, Unreachable

# One answer of a resolver: two tries of two seconds, on a path of a second.
LOOKUP_TIMEOUT_S = 6.0
# Records that name further names, as libp2p's own bootstrap names do once.
MAX_DEPTH = 3
# Names that one entry point leads to.
MAX_NAMES = 8
# Addresses of one entry point. A swarm needs a few; a larger answer is a mistake.
MAX_ADDRESSES = 32

_DNSADDR = re.compile(r"/dnsaddr/([A-Za-z0-9._-]{1,253})(?:/p2p/([0-9A-Za-z]{1,60}))?")
_PREFIX = "dnsaddr="

ReadTexts = Callable[[str], Awaitable[list[str]]]
"""Returns the TXT records of a name. Raises `Unreachable`."""


def is_dnsaddr(text: str) -> bool:
    """Whether an address of the user's is a name in DNS."""
    return _DNSADDR.fullmatch(text) is not None


async def find_addresses(dnsaddr: str, read_texts: ReadTexts) -> tuple[PeerAddress, ...]:
    """The addresses that an entry point /dnsaddr/NAME stands for.

    Records that are no address of a node are left out.

    Raises:
        Unreachable: When the name has no such address, or does not answer.
    """
    found: dict[PeerAddress, None] = {}
    names, seen = [(dnsaddr, 0)], {dnsaddr}
    while names:
        current, depth = names.pop(0)
        parts = _DNSADDR.fullmatch(current)
        assert parts is not None
        domain, peer = parts.groups()
        try:
            texts = await read_texts(f"_dnsaddr.{domain}")
        except Unreachable:
            if depth == 0:
                raise
            # One name that does not answer must not hide the others.
            continue
        for text in texts:
            record = text.removeprefix(_PREFIX)
            if record == text or (peer and not record.endswith(f"/p2p/{peer}")):
                continue
            if is_dnsaddr(record):
                if record not in seen and len(seen) < MAX_NAMES and depth + 1 < MAX_DEPTH:
                    seen.add(record)
                    names.append((record, depth + 1))
                continue
            try:
                found[parse_peer_address(record)] = None
            except PeerFault:
                # The record is of another transport.
                continue
    if not found:
        raise Unreachable(f"{dnsaddr} names no address of a node")
    return tuple(found)[:MAX_ADDRESSES]


async def read_texts(name: str) -> list[str]:
    """The TXT records of a name, from this machine's resolvers. Raises `Unreachable`."""
    try:
        # Made anew each time: the resolvers change with the network.
        resolver = dns.asyncresolver.Resolver()
    except (dns.exception.DNSException, OSError) as error:
        raise Unreachable(f"no DNS resolver is configured: {error}") from error
    return await ask_resolver(resolver, name)


async def ask_resolver(resolver: dns.asyncresolver.Resolver, name: str) -> list[str]:
    """The TXT records of a name from `resolver`. Raises `Unreachable`."""
    try:
        with trio.fail_after(LOOKUP_TIMEOUT_S):
            answer = await resolver.resolve(name, "TXT", lifetime=LOOKUP_TIMEOUT_S)
    except trio.TooSlowError:
        raise Unreachable(f"no DNS answer for {name} in {LOOKUP_TIMEOUT_S:.0f} s") from None
    except (dns.exception.DNSException, OSError, ValueError) as error:
        raise Unreachable(f"DNS has no TXT record of {name}: {error}") from error
    return [b"".join(record.strings).decode("utf-8", "replace") for record in answer]
