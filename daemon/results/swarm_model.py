"""Downloads a model from a running swarm, as a light node that trains nothing.

The node verifies every certificate itself, and each chunk of the state against its certificate.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import trio

from daemon.config.settings import Config
from daemon.home.layout import BULK_CERTIFICATE_FILE
from daemon.journal import Journal
from daemon.network.network import LibP2PNetwork
from daemon.network.tls.certificate import load_or_make
from daemon.node.discovery import network_settings
from daemon.node.observer_node import find_members
from daemon.node.run_observer import RunObserver
from daemon.results.run_model import RunModel, is_named
from daemon.swarm.ancestry import LineageEntry
from daemon.swarm.multi_peer_download import download_from
from daemon.swarm.state_download import StateDownload
from protocol.averaging.vector_layout import chunk_count
from protocol.errors import UserError
from protocol.identity import PeerId, Signer
from protocol.run.manifest import SignedManifest

# How long the swarm may take to name its certificates, and how long one may take to be found.
FOLLOW_S = 60.0
# Between looks at the lineage.
POLL_S = 0.5
# A newer certificate may replace one whose state nobody holds any more.
ATTEMPTS = 3

Say = Callable[[str], None]


async def model_of_swarm(
    config: Config, signed: SignedManifest, parameters: int, certificate: str | None, say: Say
) -> RunModel:
    """Download the newest certified model, or that of a certificate.

    Args:
        config: the settings, with the addresses to join.
        signed: the run.
        parameters: the size of the task's vector.
        certificate: the number of a certificate, or the beginning of its hash; None for the newest.
        say: prints a message.

    Raises:
        UserError: "JOIN" where no certificate arrives, "CERTIFICATE" where no member has the state.
    """
    secret = os.urandom(32)
    network = LibP2PNetwork(
        network_settings(config, bulk=False),
        secret,
        load_or_make(config.home / BULK_CERTIFICATE_FILE, "reader"),
    )
    journal = Journal(None, time.time)
    follower = RunObserver(network, Signer(secret), signed, "reader", journal)
    follower.lineage.chunks = chunk_count(parameters)
    async with network.running(), trio.open_nursery() as nursery:
        nursery.start_soon(follower.run)
        nursery.start_soon(find_members, network, signed)
        found = await _download(network, follower, parameters, certificate, say)
        nursery.cancel_scope.cancel()
    entry, download = found
    return RunModel(
        signed=signed, number=entry.tip.number, tip=entry.tip.hash, parameters=download.value
    )


async def _download(
    network: LibP2PNetwork,
    follower: RunObserver,
    parameters: int,
    certificate: str | None,
    say: Say,
) -> tuple[LineageEntry, StateDownload]:
    failure = ""
    for _ in range(ATTEMPTS):
        entry = await _entry(follower, certificate)
        say(f"Downloading the model of certificate {entry.tip.number}.")
        download = StateDownload(entry.tip.hash, entry.tip.state, parameters)

        def holders(entry: LineageEntry = entry) -> list[PeerId]:
            at_tip = follower.members.holders_of(entry.tip.hash)
            return list(dict.fromkeys((*at_tip, *entry.certificate.voters)))

        failure = await download_from(network, download, holders, lambda *_: None)
        if not failure:
            return entry, download
    raise UserError(
        "CERTIFICATE",
        f"No member gave the model of certificate {certificate or entry.tip.number}.",
        why=failure,
        fix="ask for the newest one, without --certificate",
    )


async def _entry(follower: RunObserver, certificate: str | None) -> LineageEntry:
    """Wait for the certificate that is meant. The newest is one at which a member is now."""
    lineage, began_s = follower.lineage, trio.current_time()
    while trio.current_time() < began_s + FOLLOW_S:
        await trio.sleep(POLL_S)
        best = lineage.best
        for step in reversed(lineage.path(lineage.root, best) if best.number else []):
            entry = lineage.entry(step.hash)
            meant = (
                bool(follower.members.holders_of(step.hash))
                if certificate is None
                else is_named(step.outcome.number, step.hash, certificate)
            )
            if meant and entry is not None:
                return entry
    if not lineage.best.number:
        raise UserError(
            "JOIN",
            f"The swarm named no certificate within {FOLLOW_S:.0f} s.",
            why="no round is certified yet, or no member can be reached",
            fix="hypergpud observe --join MULTIADDR shows what the swarm does",
        )
    which = f"certificate {certificate}" if certificate else "certificate with its model"
    raise UserError(
        "CERTIFICATE",
        f"The swarm named no {which} within {FOLLOW_S:.0f} s.",
        why=f"its newest is number {lineage.best.number}",
        fix="name another number, or leave out --certificate",
        exit_code=2,
    )
