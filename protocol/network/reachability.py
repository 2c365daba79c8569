"""Whether others can call a node, and which paths lead from one node to another.

A home router lets its node call out and lets nobody in. So a node asks members to call it, each on
a new connection, and remembers what came of that. Its beacons carry the result, and both ends of a
pair choose their paths by it.

    way        how the bytes get a connection                              kind of the path
    call       this node calls the peer                                    direct
    call_back  the peer calls this node, which asked for that              direct
    punch      both call each other at one moment, through both routers    punched
    relay      both call a third node, which passes the bytes on           relayed
    libp2p     a stream of the control connection                          libp2p

Pure: what is measured comes in as arguments.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.identity import PeerId

MAX_OBSERVED_CHARS = 45
"""The longest text of an IPv6 address."""

PathKind = Literal["direct", "punched", "relayed", "libp2p"]
Way = Literal["call", "call_back", "punch", "relay", "libp2p"]
Nat = Literal["unknown", "none", "cone", "symmetric"]
"""What stands between a node and the others.

"none": others see the node at an address of its own. "cone": a router that shows one outer port to
two destinations, so that others can be told where to call. "symmetric": a router that shows another
port to each destination.
"""

KIND_OF: dict[Way, PathKind] = {
    "call": "direct",
    "call_back": "direct",
    "punch": "punched",
    "relay": "relayed",
    "libp2p": "libp2p",
}

_PRIVATE = tuple(
    map(
        ipaddress.ip_network,
        (
            # RFC 1918, RFC 6598 (a provider's own NAT), and IPv6's local addresses.
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "::1/128",
            "fc00::/7",
            "fe80::/10",
        ),
    )
)


class Reachability(msgspec.Struct, frozen=True, kw_only=True):
    """What a node knows of how others reach it, as its beacons and its status say it."""

    # Whether a member's call arrived. None until a member has tried.
    callable: bool | None = None
    nat: Nat = "unknown"
    # The address at which members see this node; empty until one has said it.
    observed: Annotated[str, Meta(max_length=MAX_OBSERVED_CHARS)] = ""


UNKNOWN_REACHABILITY = Reachability()


class DialBackResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one member's calls to this node, each on a new connection."""

    by: PeerId
    # The address at which the member sees this node, and which it called.
    observed: str
    # Whether the calls arrived at the two ports. `bulk` is None for a node without a bulk port.
    control: bool
    bulk: bool | None


def is_private(host: str) -> bool:
    """Whether an address means something in its own network alone; False for names."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in _PRIVATE if network.version == address.version)


def conclude(
    results: Iterable[DialBackResult], own_hosts: Sequence[str], mappings_differ: bool | None
) -> Reachability:
    """Conclude what a node's reachability is.

    Members that see the node at a public address count before those that see it at a private one:
    these are in its own network, and their calls prove nothing about the router.

    Args:
        results: what came of the calls, one result a member, the newest last.
        own_hosts: the addresses of this machine and those that the user configured.
        mappings_differ: whether two members (or two ports of one) saw different outer ports of one
            socket; None where that was not measured.
    """
    known = list(results)
    if not known:
        return UNKNOWN_REACHABILITY
    outside = [result for result in known if not is_private(result.observed)]
    counted = outside or known
    observed = counted[-1].observed
    arrived = any(result.control and result.bulk is not False for result in counted)
    nat: Nat = "unknown"
    if observed in own_hosts:
        nat = "none"
    elif mappings_differ is not None:
        nat = "symmetric" if mappings_differ else "cone"
    return Reachability(callable=arrived, nat=nat, observed=observed)


def misnamed(results: Iterable[DialBackResult], advertised: Sequence[str]) -> str:
    """Where members see this node, if it is at none of the addresses that the user advertises.

    Only members of an advertised family that see the node at a public address count.

    Args:
        results: what came of the members' calls, which went to where they see the node.
        advertised: IP addresses that lead to another machine or to the router before this one.

    Returns:
        The address that members see; empty where it is advertised, or where nothing is known.
    """
    families = {":" in host for host in advertised}
    seen = [
        result.observed
        for result in results
        if (":" in result.observed) in families and not is_private(result.observed)
    ]
    return seen[-1] if seen and not set(seen) & set(advertised) else ""


def ways_to(own: Reachability, peer: Reachability, *, seen_elsewhere: bool) -> tuple[Way, ...]:
    """The ways to try from this node to a peer, best first.

    A way that cannot work is left out, since a silent router costs a connect timeout.

    Args:
        seen_elsewhere: whether the peer called this node from an address that the peer does not
            name as its own. Then there is a router before the peer.
    """
    call = peer.callable or (peer.callable is None and not seen_elsewhere)
    ways: list[Way] = ["call"] if call else []
    if own.callable is not False:
        ways.append("call_back")
    if not call and peer.callable is None:
        # Nobody has tried yet, and a router may forward the ports.
        ways.append("call")
    if "symmetric" not in (own.nat, peer.nat) and not (own.callable and call):
        ways.append("punch")
    return (*ways, "relay", "libp2p")


class RelayOffer(msgspec.Struct, frozen=True, kw_only=True):
    """A member's answer to the question whether it would relay to a peer."""

    relay: PeerId
    # Sessions that it relays now, of as many as it allows.
    sessions: int
    most: int
    # None where the connection to it is not measured yet.
    rtt_s: float | None


def order_relays(offers: Iterable[RelayOffer]) -> list[PeerId]:
    """The relays to ask, best first: those with the most room, and of these the nearest.

    Room counts in eighths: a tenth more of it is no reason for a longer way.
    """

    def cost(offer: RelayOffer) -> tuple[int, float, PeerId]:
        used = 8 * offer.sessions // max(1, offer.most)
        return used, offer.rtt_s if offer.rtt_s is not None else 1.0, offer.relay

    return [offer.relay for offer in sorted(offers, key=cost) if offer.sessions < offer.most]


def reachability_text(reach: Reachability, advertised: str = "") -> str:
    """One sentence for a person: what others can do with this node's address.

    Args:
        advertised: what the user advertises, where it does not lead here (`misnamed`).
    """
    if advertised:
        return (
            f"Others cannot call this node: network.advertise names {advertised}, and members see"
            f" this node at {reach.observed}. Correct the setting, or remove it."
        )
    at = f" at {reach.observed}" if reach.observed else ""
    if reach.callable is None:
        return "No other member has tried to call this node yet."
    if reach.callable:
        return f"Others can call this node{at}."
    router = {
        "cone": "; its router keeps one port, so that pairs can connect through it",
        "symmetric": "; its router changes ports, so that pairs need a relay",
    }.get(reach.nat, "")
    return f"Others cannot call this node{at}{router}."
