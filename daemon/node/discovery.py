"""How a node finds the others of its run: which run they are in, where it is announced, and what
the next start remembers of them.
"""

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
from daemon.network.tls.certificate import load_or_make
from daemon.swarm.manifest_exchange import fetch_run
from daemon.system.offload import in_thread
from protocol.digest import SHOWN_DIGITS
from protocol.errors import PeerFault, Unreachable, UserError
from protocol.journal import Warned
from protocol.ports.disk import DiskFull
from protocol.ports.network import Network
from protocol.rules.versions import check_rules
from protocol.run.manifest import SignedManifest

# Between looks at who is connected: what a node that is killed forgets of them.
REMEMBER_S = 10.0
# For the first answer of a node we join; after that the person should hear what is wrong.
JOIN_S = 30.0
# After listening, before the run is announced: connections to the join addresses are being made.
ENTER_S = 0.5


def network_settings(config: Config, *, bulk: bool = True) -> NetworkSettings:
    """The network's part of the node's settings."""
    given = config.network
    return NetworkSettings(
        listen_host=given.listen_host,
        listen_port=given.listen_port,
        usual_port=last_port(config.home) if bulk else 0,
        bulk_port=given.bulk_port,
        join=given.join,
        # hosts: both planes are reached at them.
        advertise=tuple(address.split("/")[2] for address in given.advertise),
        min_connections=given.min_connections,
        bulk=bulk,
    )


async def find_manifest(config: Config, home: Path) -> SignedManifest:
    """The manifest of the run that the nodes we join are in.

    Raises:
        UserError: "JOIN" when none of them answers, "RULES" when they plan by rules that this program does not know.
    """
    # A connection of its own under a key of its own: protocols must be registered before the node's
    # network starts, and which run it is decides what they are.
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
                        return await fetch_run(network, peer)
                    except (Unreachable, PeerFault) as error:
                        reasons.append(str(error))
                await trio.sleep(1.0)
    raise UserError(
        "JOIN",
        f"No node answered at {', '.join(config.network.join)} within {JOIN_S:.0f} s.",
        why=reasons[-1] if reasons else "no connection",
        fix="check that the other node runs, and that this machine reaches its address and port",
    )


async def manifest_of_others(config: Config, say: Callable[[str], None]) -> SignedManifest:
    """What `find_manifest` says.

    Where nobody answers, and this home was in its last run with them, that run goes on: they may
    come back later.
    """
    try:
        return await find_manifest(config, config.home)
    except UserError as error:
        asked = {address.rpartition("/p2p/")[2] for address in config.network.join}
        kept = run_among(config.home, asked) if error.code == "JOIN" else None
        if kept is None:
            raise
        check_rules(kept.open().rules, kept.run.hex()[:SHOWN_DIGITS])
        say(
            f"{error.what} Going on with the run that this home was in with them; they are called again and again."
        )
        return kept


async def announce(network: Network, signed: SignedManifest) -> None:
    """Find the run's members in the DHT, then be one of those found."""
    await trio.sleep(ENTER_S)
    # Before providing: afterwards the local store alone would answer.
    await network.find_providers(signed.run)
    await network.provide(signed.run)


async def remember_members(
    home: Path, signed: SignedManifest, network: LibP2PNetwork, journal: Journal
) -> None:
    """For the next start: which run this home is in, and where its members are. Until cancelled."""
    told = False
    while True:
        try:
            # A port that another program took for now stays the one of the next start: others call
            # it, and routers forward it.
            await in_thread(
                partial(
                    save_recent_state,
                    home,
                    signed,
                    network.lost_port or network.port,
                    network.members(),
                )
            )
            told = False
        except (DiskFull, OSError) as full:
            if not told:
                journal.record(
                    Warned(
                        code="DISK_FULL",
                        message=f"the next start will not know where this run's members are: {full}",
                    )
                )
            told = True
        await trio.sleep(REMEMBER_S)
