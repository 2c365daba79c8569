"""Measures how others reach this node, for `hypergpud doctor --network`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from daemon.network.addresses import PeerAddress, primary_hosts
from daemon.network.listeners import Listeners
from daemon.network.peers.dial_policy import HTTPS_PORT
from daemon.network.running_parts import RunningParts
from protocol.identity import PeerId
from protocol.network.network_report import (
    SENTENCES,
    NetworkReport,
    PeerLine,
    family_line,
    judge,
    mapping_line,
    port_line,
    remedy_for,
    remedy_for_misnamed,
)
from protocol.ports.network import Link

# Members call back within 3 s, and outer ports are asked for within 6 s.
CHECK_S = 11.0
# A connection to a member at its own port: a SYN that was lost is sent again after 1 s.
PROBE_S = 3.0
# Addresses tried for the question whether nothing but port 443 leads out.
PROBED = 4


async def diagnose(
    parts: RunningParts,
    listeners: Listeners,
    links: Sequence[Link],
    addresses_of: Callable[[PeerId], Sequence[PeerAddress]],
    reason_of: Callable[[PeerId], str],
) -> NetworkReport:
    """Ask members to call this node, each on a new connection. Takes `CHECK_S` at most.

    Args:
        parts: The network while it runs.
        listeners: Where this node listens.
        links: The connected peers.
        addresses_of: Where a peer may be called.
        reason_of: Why the path to a peer is what it is.
    """
    began = trio.current_time()
    monitor, only_443 = parts.traversal.monitor, None
    before = monitor.results

    async def look_out() -> None:
        nonlocal only_443
        known = [one for link in links for one in addresses_of(link.peer)]
        only_443 = await lets_only_443_out(known)

    with trio.move_on_after(CHECK_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look_out)
            nursery.start_soon(monitor.check)
    # Without an answer to this check, an earlier one says nothing about now.
    results = monitor.results if monitor.results is not before else ()
    control = port_line(listeners.port, [one.control for one in results])
    bulk = port_line(listeners.bulk_port, [one.bulk for one in results if one.bulk is not None])
    local = primary_hosts()
    ipv4, ipv6 = (family_line(version, local, results) for version in (4, 6))
    advertised, mapping = monitor.misnamed, parts.own.mapping
    verdict = judge(len(links), results, advertised)
    return NetworkReport(
        verdict=verdict,
        sentence=SENTENCES[verdict],
        nat=monitor.reach.nat,
        control=control,
        bulk=bulk,
        mapping=mapping_line(mapping, trio.current_time()),
        pinholes=mapping_line(parts.own.pinholes, trio.current_time()),
        ipv4=ipv4,
        ipv6=ipv6,
        only_443=only_443,
        peers=tuple(
            PeerLine(
                peer=link.peer,
                path=link.path,  # type: ignore[arg-type]
                reason=reason_of(link.peer),
                rtt_s=link.rtt_s,
            )
            for link in links
        ),
        relayed_for_others_bytes=parts.traversal.relay.figures().relayed_bytes,
        remedy=(
            remedy_for_misnamed(advertised, monitor.reach.observed, control.port)
            if verdict == "misnamed"
            else remedy_for(verdict, control, bulk, mapping, ipv4, only_443=only_443)
        ),
        took_s=trio.current_time() - began,
    )


async def lets_only_443_out(addresses: Sequence[PeerAddress]) -> bool | None:
    """Whether new connections lead out to port 443 and to no other port of these addresses.

    None where no address with another port is known, or where port 443 leads nowhere either.
    """
    others = [one for one in addresses if one.port != HTTPS_PORT][:PROBED]
    at_443 = [one for one in addresses if one.port == HTTPS_PORT][:PROBED]
    if not others:
        return None
    if await _any_answers(others):
        return False
    return True if at_443 and await _any_answers(at_443) else None


async def _any_answers(addresses: Sequence[PeerAddress]) -> bool:
    answered: list[PeerAddress] = []

    async def probe(address: PeerAddress) -> None:
        try:
            stream = await trio.open_tcp_stream(address.host, address.port)
        except (OSError, ValueError):
            return
        await trio.aclose_forcefully(stream)
        answered.append(address)
        nursery.cancel_scope.cancel()

    with trio.move_on_after(PROBE_S):
        async with trio.open_nursery() as nursery:
            for address in addresses:
                nursery.start_soon(probe, address)
    return bool(answered)
