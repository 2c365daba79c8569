"""Finds the other members of a run, and saves their addresses for the next start."""

from __future__ import annotations

import ipaddress
from functools import partial
from pathlib import Path

import trio

from daemon.config.settings import Config
from daemon.home.recent_state import last_port, save_recent_state
from daemon.journal import Journal
from daemon.network.network import LibP2PNetwork
from daemon.network.paths.paced_stream import Bandwidth
from daemon.network.settings import NetworkSettings
from daemon.network.traversal.relay import RelaySettings
from daemon.system.offload import in_thread
from protocol.journal import Warned
from protocol.ports.disk import DiskFull
from protocol.ports.network import Network
from protocol.run.manifest import SignedManifest

# Between two saves of the members' addresses. A node that is killed loses the changes since.
SAVE_S = 10.0
# Between listening and the announcement. The node connects to the join addresses meanwhile.
ANNOUNCE_DELAY_S = 0.5


def network_settings(config: Config, *, bulk: bool = True) -> NetworkSettings:
    """Derive the network's settings from the node's settings."""
    given = config.network
    return NetworkSettings(
        listen_host=given.listen_host,
        listen_port=given.listen_port,
        usual_port=last_port(config.home) if bulk else 0,
        bulk_port=given.bulk_port,
        join=given.join,
        one_port=given.one_port,
        upnp=given.upnp and bulk,
        # Loopback is no LAN: a node that listens there alone stays on this machine.
        mdns=given.mdns and not ipaddress.ip_address(given.listen_host).is_loopback,
        # The hosts, because control and bulk connections use the same ones.
        advertise=tuple("/".join(address.split("/")[:3]) for address in given.advertise),
        min_connections=given.min_connections,
        relay=RelaySettings(enabled=given.relay, cap_bps=1e6 * _relay_mbps(config)),
        bandwidth=Bandwidth(
            up_bps=1e6 * config.limits.upload_mbps, down_bps=1e6 * config.limits.download_mbps
        ),
        bulk=bulk,
    )


def _relay_mbps(config: Config) -> float:
    """Return what this node relays at most: each byte comes down and goes up again. 0: no cap."""
    limits = config.limits
    caps = (config.network.relay_mbps, limits.upload_mbps, limits.download_mbps)
    return min((cap for cap in caps if cap), default=0.0)


async def announce(network: Network, signed: SignedManifest) -> None:
    """Find the run's members in the DHT, then announce this node there."""
    await trio.sleep(ANNOUNCE_DELAY_S)
    # Look before announcing: afterwards the local store would answer alone.
    await network.find_providers(signed.run)
    await network.provide(signed.run)


async def save_members(
    home: Path, signed: SignedManifest, network: LibP2PNetwork, journal: Journal
) -> None:
    """Save the run and its members' addresses for the next start, until cancelled."""
    warned = False
    while True:
        try:
            # Keep the usual port even when another program uses it now: members call it, and
            # routers forward it.
            await in_thread(
                partial(
                    save_recent_state,
                    home,
                    signed,
                    network.lost_port or network.port,
                    network.members(),
                )
            )
            warned = False
        except (DiskFull, OSError) as full:
            if not warned:
                message = f"The next start cannot know the addresses of this run's members: {full}"
                journal.record(Warned(code="DISK_FULL", message=message))
            warned = True
        await trio.sleep(SAVE_S)
