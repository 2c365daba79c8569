"""Builds a node's network, and records what the network counts."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import trio

from daemon.home.layout import BULK_CERTIFICATE_FILE
from daemon.journal import Journal
from daemon.network.addresses import WILDCARDS
from daemon.network.network import LibP2PNetwork
from daemon.network.port_holder import port_holder
from daemon.network.tls.certificate import load_or_make
from daemon.node.discovery import network_settings
from daemon.node.duplicate_key import DuplicateKeyDetector
from daemon.node.node_parts import NodeParts
from daemon.swarm.clock_exchange import ClockExchange
from daemon.version import version
from protocol.identity import PeerId
from protocol.journal import (
    AddressesChanged,
    InputRefused,
    NodeStarted,
    ReachReport,
    TrafficReport,
)
from protocol.ports.network import Network
from protocol.rules.versions import RULES_4
from protocol.run.manifest import SignedManifest

# The page shows traffic and refusals as current; it asks once a second.
REPORT_S = 2.0


def build_network(
    node: NodeParts, signed: SignedManifest, detector: DuplicateKeyDetector
) -> LibP2PNetwork:
    """Return the node's network, which has not started yet."""
    settings = msgspec.structs.replace(
        network_settings(node.config),
        serials=node.serials.next,
        on_key_observed=detector.saw,
        # Earlier releases know no run of rules 4.
        earlier_releases=signed.open().rules < RULES_4,
    )
    certificate = load_or_make(node.config.home / BULK_CERTIFICATE_FILE, node.config.node.name)
    return LibP2PNetwork(settings, node.secret, certificate)


def node_started(signed: SignedManifest, network: Network, *, name: str, role: str) -> NodeStarted:
    """Return the first event that a process writes into the journal."""
    manifest = signed.open()
    return NodeStarted(
        peer=network.peer,
        name=name,
        role=role,
        version=version(),
        addresses=network.addresses,
        run=signed.run.hex(),
        run_name=manifest.name,
        task=manifest.task,
        engine=manifest.engine,
        min_peers=manifest.group.min_peers,
        admits=manifest.admits,
        owner=manifest.owner,
        chain=manifest.chain,
    )


async def report_network(network: LibP2PNetwork, journal: Journal) -> None:
    """Record traffic, refusals, addresses and reach every `REPORT_S`, until cancelled."""
    before: dict[str, int] = {}
    addresses = network.addresses
    reported: ReachReport | None = None
    while True:
        if network.addresses != addresses:
            addresses = network.addresses
            journal.record(AddressesChanged(addresses=addresses))
        if (report := _reach_report(network)) != reported:
            reported = report
            journal.record(report)
        traffic, refusals = network.traffic(), dict(network.refusals())
        journal.record(
            TrafficReport(
                control_sent=traffic.control_sent,
                control_received=traffic.control_received,
                bulk_sent=traffic.bulk_sent,
                bulk_received=traffic.bulk_received,
                connections=len(network.links()),
            )
        )
        for reason, count in refusals.items():
            if count > before.get(reason, 0):
                journal.record(
                    InputRefused(
                        reason=reason,
                        peer="",
                        detail="refused at an open port",
                        count=count - before.get(reason, 0),
                    )
                )
        before = refusals
        await trio.sleep(REPORT_S)


def _reach_report(network: LibP2PNetwork) -> ReachReport:
    reach, relay = network.reach, network.relay_figures()
    return ReachReport(
        callable=reach.callable,
        nat=reach.nat,
        observed=reach.observed,
        text=network.reach_text,
        unreachable=tuple(sorted(network.unreachable())),
        relay_sessions=relay.sessions,
        relayed_bytes=relay.relayed_bytes,
    )


def lost_port_text(network: LibP2PNetwork) -> str:
    """Say which program uses the node's usual port, and what to do."""
    lost = network.lost_port
    holder = port_holder(lost) or "another program"
    return (
        f"port {lost}, at which other nodes look for this node, is in use by {holder}. This node"
        f" listens on {network.port} until it is restarted; connections that a router forwards to"
        f" {lost} do not arrive. Stop that program and start again, or keep the new port:"
        f" hypergpud start --port {network.port}"
    )


def address_lines(node: NodeParts, network: LibP2PNetwork) -> Iterator[str]:
    """Yield what the person should know about the node's addresses."""
    first, *others = network.addresses
    for address in others:
        yield f"Also reachable at {address}"
    if node.config.network.listen_host in WILDCARDS and first.startswith("/ip4/127."):
        yield (
            "No network was found: only nodes on this machine can join. Connect this machine to a"
            " network, then restart the node."
        )
    if network.lost_port:
        yield f"Attention: {lost_port_text(network)}."


def clock_exchange(network: LibP2PNetwork, journal: Journal) -> ClockExchange:
    """Return what compares this machine's clock with those of peers. The network has not begun."""

    def refuse(reason: str, peer: PeerId, detail: str) -> None:
        journal.record(InputRefused(reason=reason, peer=peer, detail=detail))

    return ClockExchange(network, time.time_ns, journal.record, journal.name_of, refuse)
