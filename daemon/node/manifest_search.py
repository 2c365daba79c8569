"""Asks the nodes to join for the manifest of their run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import trio
from msgspec.structs import replace

from daemon.config.settings import Config
from daemon.home.layout import BULK_CERTIFICATE_FILE
from daemon.home.recent_state import members_of, run_among
from daemon.network.network import LibP2PNetwork
from daemon.network.tls.certificate import load_or_make
from daemon.node.discovery import network_settings
from daemon.swarm.manifest_exchange import fetch_run
from protocol.digest import SHOWN_DIGITS, Digest
from protocol.errors import PeerFault, Unreachable, UserError
from protocol.identity import PeerId
from protocol.rules.versions import check_rules
from protocol.run.manifest import SignedManifest

# How long the joined nodes may take to answer before the node reports what is wrong.
JOIN_S = 30.0
# Between two looks for entry points that DNS has named meanwhile.
LOOK_S = 0.25
# The pause after the first failure of one entry point, and the longest. It doubles each time.
AGAIN_S = (1.0, 8.0)


async def find_manifest(config: Config, home: Path, wanted: Digest | None = None) -> SignedManifest:
    """Ask all nodes to join at once for the manifest of their run; the first answer counts.

    With `wanted`, nodes of other runs do not count.

    Raises:
        UserError: "JOIN" when no node answers, "RULES" for a run of rules that this program does
            not know.
    """
    # A network of its own, with a new key: the run decides which protocols the node registers, and
    # the node registers them before its network starts.
    settings = replace(
        network_settings(config, bulk=False), listen_port=0, wanted_run=wanted or b""
    )
    network = LibP2PNetwork(
        settings, os.urandom(32), load_or_make(home / BULK_CERTIFICATE_FILE, config.node.name)
    )
    search = _Search(network, wanted)
    async with network.running():
        with trio.move_on_after(JOIN_S):
            await search.run()
    if search.found is not None:
        return search.found
    if search.refused is not None:
        raise search.refused
    reasons = (*search.reasons.values(), *network.entries.faults.values())
    raise UserError(
        "JOIN",
        f"No node answered at {', '.join(config.network.join)} within {JOIN_S:.0f} s.",
        why=reasons[0] if reasons else "no connection",
        fix="check that the other node runs, and that this machine reaches its address and port",
    )


class _Search:
    """One search. `found` is the manifest; `refused` says why an answer cannot be used."""

    def __init__(self, network: LibP2PNetwork, wanted: Digest | None) -> None:
        self._network, self._wanted = network, wanted
        self.found: SignedManifest | None = None
        self.refused: UserError | None = None
        # Why each entry point gave no manifest.
        self.reasons: dict[PeerId, str] = {}

    async def run(self) -> None:
        """Ask until one node answers, or until the only ones that answer cannot be joined."""
        asked: set[PeerId] = set()
        done: set[PeerId] = set()

        async def ask(peer: PeerId) -> None:
            await self._ask(peer)
            done.add(peer)

        async with trio.open_nursery() as nursery:
            while self.found is None and not (self.refused is not None and asked == done):
                for peer in self._network.entries.peers():
                    if peer not in asked:
                        asked.add(peer)
                        nursery.start_soon(ask, peer)
                await trio.sleep(LOOK_S)
            nursery.cancel_scope.cancel()

    async def _ask(self, peer: PeerId) -> None:
        """Ask one node until it answers."""
        pause = AGAIN_S[0]
        while True:
            try:
                signed = await fetch_run(self._network, peer)
            except (Unreachable, PeerFault) as error:
                self.reasons[peer] = str(error)
            except UserError as error:
                self.refused = self.refused or error
                return
            else:
                if self._wanted in (None, signed.run):
                    self.found = self.found or signed
                    return
                self.reasons[peer] = (
                    f"the node {peer} is in another run, {signed.run.hex()[:SHOWN_DIGITS]}"
                )
            await trio.sleep(pause)
            pause = min(2 * pause, AGAIN_S[1])


async def manifest_of_others(
    config: Config, say: Callable[[str], None], wanted: Digest | None = None
) -> SignedManifest:
    """Return the manifest that `find_manifest` finds, else that of the last run with these nodes.

    The nodes of the last run may come back later.
    """
    try:
        return await find_manifest(config, config.home, wanted)
    except UserError as error:
        kept = run_among(config.home, config.network.join) if error.code == "JOIN" else None
        if kept is None or wanted not in (None, kept.run):
            raise
        check_rules(kept.open().rules, kept.run.hex()[:SHOWN_DIGITS])
        say(
            f"{error.what} Continuing the last run that this home shared with them, and retrying"
            " their addresses."
        )
        return kept


def with_members(config: Config, signed: SignedManifest) -> Config:
    """Return settings that also join the members of the run that this home met before."""
    members = members_of(config.home, signed.run)
    join = tuple(dict.fromkeys((*config.network.join, *members)))
    return replace(config, network=replace(config.network, join=join))
