"""Finds the other members of a run, and saves their addresses for the next start."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import trio

from daemon.config.settings import Config
from daemon.home.layout import BULK_CERTIFICATE_FILE
from daemon.home.recent_state import last_port, run_among, save_recent_state
from daemon.journal import Journal
from daemon.network.network import LibP2PNetwork
from daemon.network.settings import NetworkSettings
from daemon.network.traversal.relay import RelaySettings
from daemon.network.tls.certificate import load_or_make
from daemon.swarm.manifest_exchange import fetch_run
from daemon.system.offload import in_thread
from protocol.digest import SHOWN_DIGITS, Digest
from protocol.errors import PeerFault, Unreachable, UserError
from protocol.journal import Warned
from protocol.ports.disk import DiskFull
from protocol.ports.network import Network
from protocol.rules.versions import check_rules
from protocol.run.manifest import SignedManifest

# Between two saves of the members' addresses. A node that is killed loses the changes since.
SAVE_S = 10.0
# How long the joined nodes may take to answer before the node reports what is wrong.
JOIN_S = 30.0
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
        # The hosts, because control and bulk connections use the same ones.
        advertise=tuple(address.split("/")[2] for address in given.advertise),
        min_connections=given.min_connections,
        relay=RelaySettings(enabled=given.relay, cap_bps=1e6 * given.relay_mbps),
        bulk=bulk,
    )


async def find_manifest(config: Config, home: Path, wanted: Digest | None = None) -> SignedManifest:
    """Ask the nodes to join for the manifest of their run.

    With `wanted`, nodes of other runs do not count.

    Raises:
        UserError: "JOIN" when no node answers, "RULES" for a run of rules that this program does
            not know.
    """
    # A network of its own, with a new key: the run decides which protocols the node registers, and
    # the node registers them before its network starts.
    settings = msgspec.structs.replace(network_settings(config, bulk=False), listen_port=0)
    network = LibP2PNetwork(
        settings, os.urandom(32), load_or_make(home / BULK_CERTIFICATE_FILE, config.node.name)
    )
    reasons: list[str] = []
    async with network.running():
        with trio.move_on_after(JOIN_S):
            while True:
                for address in config.network.join:
                    peer = address.rpartition("/p2p/")[2]
                    try:
                        signed = await fetch_run(network, peer)
                        if wanted in (None, signed.run):
                            return signed
                        reasons.append(_other_run(address, signed))
                    except (Unreachable, PeerFault) as error:
                        reasons.append(str(error))
                await trio.sleep(1.0)
    raise UserError(
        "JOIN",
        f"No node answered at {', '.join(config.network.join)} within {JOIN_S:.0f} s.",
        why=reasons[-1] if reasons else "no connection",
        fix="check that the other node runs, and that this machine reaches its address and port",
    )


def _other_run(address: str, signed: SignedManifest) -> str:
    return f"the node at {address} is in another run, {signed.run.hex()[:SHOWN_DIGITS]}"


async def manifest_of_others(
    config: Config, say: Callable[[str], None], wanted: Digest | None = None
) -> SignedManifest:
    """Return the manifest that `find_manifest` finds, else that of the last run with these nodes.

    The nodes of the last run may come back later.
    """
    try:
        return await find_manifest(config, config.home, wanted)
    except UserError as error:
        asked = {address.rpartition("/p2p/")[2] for address in config.network.join}
        kept = run_among(config.home, asked) if error.code == "JOIN" else None
        if kept is None or wanted not in (None, kept.run):
            raise
        check_rules(kept.open().rules, kept.run.hex()[:SHOWN_DIGITS])
        say(
            f"{error.what} Continuing the last run that this home shared with them, and retrying"
            " their addresses."
        )
        return kept


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
