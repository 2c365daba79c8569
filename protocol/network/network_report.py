"""What `hypergpud doctor --network` says: how others reach this node, and what to do about it.

Each line is measured, or says why it is not. Pure: measurements come in as arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from protocol.identity import PeerId
from protocol.network.port_mapping import PortMapping
from protocol.network.reachability import DialBackResult, Nat, PathKind

Verdict = Literal["callable", "misnamed", "only_by_relay", "nobody_answers", "not_measured"]
SENTENCES: dict[Verdict, str] = {
    "callable": "Others can call you.",
    "misnamed": "Others cannot call you: network.advertise leads elsewhere.",
    "only_by_relay": "Others reach you only through other members, or where you call them.",
    "nobody_answers": "Nobody answers: this node is connected to no other.",
    "not_measured": "No member has called this node back yet.",
}


class PortLine(msgspec.Struct, frozen=True, kw_only=True):
    """One port of this node, and whether members' calls arrived at it."""

    port: int
    # None where no member has tried.
    open: bool | None
    # How many members tried.
    tried: int


class FamilyLine(msgspec.Struct, frozen=True, kw_only=True):
    """IPv4 or IPv6 at this node."""

    local: tuple[str, ...]
    # Where members see this node; empty where none is connected over this family.
    observed: str
    callable: bool | None
    reason: str


class MappingLine(msgspec.Struct, frozen=True, kw_only=True):
    """What the home router does."""

    state: str
    reason: str
    protocol: str
    wan: str
    # None without a lease.
    lease_left_s: float | None


class PeerLine(msgspec.Struct, frozen=True, kw_only=True):
    """The path to one connected peer."""

    peer: PeerId
    path: PathKind
    reason: str
    rtt_s: float | None


class NetworkReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer."""

    verdict: Verdict
    sentence: str
    nat: Nat
    control: PortLine
    bulk: PortLine
    mapping: MappingLine
    # What the router lets in over IPv6.
    pinholes: MappingLine
    ipv4: FamilyLine
    ipv6: FamilyLine
    # Whether nothing but port 443 leads out. None where that was not measured.
    only_443: bool | None
    peers: tuple[PeerLine, ...]
    # Bytes that this node has passed on for others.
    relayed_for_others_bytes: int
    # One thing to do; empty where nothing is wrong.
    remedy: str
    took_s: float


def port_line(port: int, arrived: Sequence[bool]) -> PortLine:
    """A port, from what came of each member's call to it."""
    return PortLine(port=port, open=any(arrived) if arrived else None, tried=len(arrived))


def family_line(
    version: Literal[4, 6], local: Sequence[str], results: Sequence[DialBackResult]
) -> FamilyLine:
    """One family, from the addresses of this machine and the members' calls in all families."""
    ours = tuple(host for host in local if (":" in host) == (version == 6))
    seen = [one for one in results if (":" in one.observed) == (version == 6)]
    arrived = any(one.control and one.bulk is not False for one in seen)
    if seen:
        count = f"{len(seen)} member{'s' if len(seen) > 1 else ''} called back"
        reason = f"{count}, and {'a call arrived' if arrived else 'no call arrived'}"
    elif not ours:
        reason = f"this machine has no IPv{version} address towards the internet"
    else:
        reason = f"not measured: no member is connected over IPv{version}"
    return FamilyLine(
        local=ours,
        observed=seen[-1].observed if seen else "",
        callable=arrived if seen else None,
        reason=reason,
    )


def mapping_line(mapping: PortMapping, now: float) -> MappingLine:
    """The mapping at a moment of the network's monotonic clock."""
    ends = mapping.lease_ends_s
    return MappingLine(
        state=mapping.state,
        reason=mapping.reason,
        protocol=mapping.protocol,
        wan=mapping.wan,
        lease_left_s=None if ends is None else max(0.0, ends - now),
    )


def judge(connected: int, results: Sequence[DialBackResult], advertised: str) -> Verdict:
    """The verdict, from the number of connected peers and the members' calls.

    `advertised` is what the user advertises, where it does not lead here; else empty.
    """
    if not connected:
        return "nobody_answers"
    if not results:
        return "not_measured"
    if advertised:
        return "misnamed"
    arrived = any(one.control and one.bulk is not False for one in results)
    return "callable" if arrived else "only_by_relay"


def remedy_for(
    verdict: Verdict,
    control: PortLine,
    bulk: PortLine,
    mapping: PortMapping,
    ipv4: FamilyLine,
    *,
    only_443: bool | None,
) -> str:
    """One thing to do, with the exact ports; empty where nothing is wrong."""
    if verdict == "nobody_answers":
        return (
            "Check that this machine is online and that an address at --join answers; any member's"
            " address is an entry."
        )
    if verdict in ("callable", "not_measured"):
        return ""
    ports = list(dict.fromkeys((control.port, bulk.port)))
    closed = [line.port for line in (control, bulk) if line.open is False] or ports
    named = " and ".join(str(port) for port in dict.fromkeys(closed))
    here = ipv4.local[0] if ipv4.local else "this machine"
    if only_443:
        return (
            "This network lets nothing out but port 443: join a member that listens there, or ask"
            f" for TCP ports {named} to be opened."
        )
    if mapping.state == "double_nat":
        return (
            "Ask your provider for a public IPv4 address of your own, or for IPv6; until then,"
            f" members relay for you ({mapping.reason})."
        )
    if mapping.state == "mapped":
        return f"Let TCP ports {named} in at this machine's firewall: the router sends them here."
    settings = f"listen_port = {control.port}"
    settings += ", one_port = true" if len(ports) == 1 else f", bulk_port = {bulk.port}"
    return (
        f"Turn on UPnP at your router, or forward its TCP ports {named} to {here}, let them in at"
        f" the firewall, and set under [network]: {settings}, advertise ="
        f' ["/ip4/{ipv4.observed or "YOUR ADDRESS"}/tcp/{control.port}"].'
    )


def remedy_for_misnamed(advertised: str, observed: str, port: int) -> str:
    """What to do where `advertised` does not lead to the node that members see at `observed`."""
    right = f"/ip{6 if ':' in observed else 4}/{observed}/tcp/{port}"
    return (
        f"network.advertise names {advertised}, and members see this node at {observed}: set"
        f' advertise = ["{right}"] under [network], or remove the setting.'
    )
