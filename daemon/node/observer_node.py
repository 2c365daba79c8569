"""The composition root of `hypergpud observe`: follows a run, and serves the page.

An observer is a light node that verifies every certificate itself. It has no worker and no wallet,
makes no offers, and generates a new key at each start. Its page shows the same journal as a node's
status.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

import msgspec
import trio

from daemon.config.settings import Config
from daemon.home.layout import BULK_CERTIFICATE_FILE, ensure_home, user_path
from daemon.journal import Journal
from daemon.network.network import LibP2PNetwork
from daemon.network.tls.certificate import load_or_make
from daemon.node.discovery import network_settings
from daemon.node.manifest_search import find_manifest
from daemon.node.network_setup import node_started, report_network
from daemon.node.owner_page import owner_view
from daemon.node.shutdown import ForcedExit, Shutdown, watch_lifeline, watch_signals
from daemon.observer.bridge import Bridge
from daemon.observer.owner_view import may_show
from daemon.observer.reference_file import ReferenceFile
from daemon.observer.server import web_server
from daemon.observer.settings import ObserverSettings
from daemon.services.training.native.rounds.round_log import certified
from daemon.swarm.ancestry import LineageEntry
from daemon.swarm.chain_sync import ChainReply, serve_chain
from daemon.swarm.follower import Follower, FollowerHooks
from daemon.swarm.lineage import Lineage
from daemon.swarm.members import Members
from daemon.swarm.messenger import Messenger
from daemon.swarm.owner_exchange import OwnerExchange
from daemon.swarm.task_agreement import serve_task
from daemon.system.allocator import trim_memory
from daemon.system.offload import in_thread
from protocol.identity import PeerId, Signer
from protocol.journal import InputRefused
from protocol.membership.owner_record import OwnerRecords
from protocol.messages.base import Signed
from protocol.messages.beacon import Beacon
from protocol.messages.envelope import AnyMessage
from protocol.rules.versions import RULES_4
from protocol.run.manifest import SignedManifest

REPORTS_FILE = "reports.sqlite"
# Between two updates of the page.
PUBLISH_S = 1.0


class RunObserver:
    """Follows a run over a network that is about to start."""

    def __init__(
        self,
        network: LibP2PNetwork,
        signer: Signer,
        signed: SignedManifest,
        name: str,
        journal: Journal,
    ) -> None:
        self._run, self._name, self._journal = signed.run, name, journal
        self._signer, self._network = signer, network
        self._manifest = signed.open()
        self.lineage = Lineage(signed.run, self._manifest)
        self.members = Members(signer.peer, journal.record, lambda _endpoint: None)
        self._messenger = Messenger(network, signed.run, self._deliver, self._refuse)
        self._follower = Follower(
            network=network,
            run=signed.run,
            signer=signer,
            lineage=self.lineage,
            members=self.members,
            refuse=self._refuse,
            hooks=FollowerHooks(
                on_entries=self._certified,
                on_members=lambda: None,
                on_gone=lambda _peer: None,
                beacon=self._beacon,
                send=self._messenger.send,
            ),
        )

        # A node asks every new peer these questions, before a beacon says which role the peer has.
        serve_chain(network, signed.run, self._no_chain)
        serve_task(network, lambda: None)
        # The owner's records travel through observers, too.
        self._owner_exchange = (
            OwnerExchange(
                network,
                signed.run,
                OwnerRecords(signed.run, self._manifest.owner),
                self._refuse,
            )
            if self._manifest.owner and self._manifest.rules >= RULES_4
            else None
        )

    async def _no_chain(self, first: int, limit: int) -> tuple[ChainReply, list[bytes]]:
        """Answer that an observer keeps no certificates."""
        return ChainReply(tip=self._run, number=0, age_s=0.0, count=0), []

    async def run(self) -> None:
        """Follow the run until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._messenger.run)
            await nursery.start(self._follower.run)
            if self._owner_exchange is not None:
                nursery.start_soon(self._owner_exchange.run)

    def _certified(self, steps: list[LineageEntry]) -> None:
        for made in steps:
            self._journal.record(certified(made, manifest=self._manifest))
        self._journal.certified(made.certificate for made in steps)

    def _refuse(self, reason: str, peer: PeerId, detail: str) -> None:
        self._journal.record(InputRefused(reason=reason, peer=peer, detail=detail))

    async def _deliver(self, signed: Signed, message: AnyMessage) -> None:
        if not self._follower.receive(signed, message):
            self._refuse("not_member", signed.peer, f"a {type(message).__name__} to an observer")

    def _beacon(self) -> Beacon:
        best = self.lineage.best
        return Beacon(
            serial=time.time_ns(),
            name=self._name,
            role="observer",
            number=best.number,
            tip=best.hash,
            view=0,
            phase="observe",
            samples=0,
            loss=None,
            samples_per_second=0.0,
            device="",
            endpoint=None,
        )


async def run(
    config: Config, join: tuple[str, ...], lifeline: int | None, say: Callable[[str], None]
) -> int:
    """Run an observer until it is asked to stop. Returns the exit status."""
    ensure_home(config.home)
    config = msgspec.structs.replace(
        config, network=msgspec.structs.replace(config.network, join=join)
    )
    shutdown = Shutdown()
    with trio.CancelScope() as scope, ForcedExit(shutdown, scope.cancel) as leave_now:
        async with trio.open_nursery() as nursery:
            await nursery.start(watch_signals, shutdown, leave_now)
            if lifeline is not None:
                nursery.start_soon(watch_lifeline, shutdown, lifeline, leave_now)
            nursery.start_soon(trim_memory)
            nursery.start_soon(_observe, config, say)
            await shutdown.wait()
            leave_now()
    say(f"Stopped: {shutdown.reason}.")
    return shutdown.exit_code


async def _observe(config: Config, say: Callable[[str], None]) -> None:
    bridge = Bridge()
    given = config.observer
    settings = ObserverSettings(
        host=given.host,
        port=given.port,
        hosts=given.hosts,
        reports=config.home / REPORTS_FILE if given.reports else None,
    )
    async with web_server(bridge, settings) as bound:
        say(f"The page is at {bound.url}; asking the swarm which run this is.")
        signed = await find_manifest(config, config.home)
        secret = os.urandom(32)
        signer = Signer(secret)
        name = config.node.name or "observer"
        network = LibP2PNetwork(
            network_settings(config, bulk=False),
            secret,
            load_or_make(config.home / BULK_CERTIFICATE_FILE, name),
        )
        journal = Journal(None, time.time)
        watcher = RunObserver(network, signer, signed, name, journal)
        async with network.running(), trio.open_nursery() as nursery:
            journal.record(node_started(signed, network, name=name, role="observer"))
            nursery.start_soon(watcher.run)
            nursery.start_soon(report_network, network, journal)
            nursery.start_soon(find_members, network, signed)
            say(f"Ready: the page is at {bound.url}")
            if may_show(settings, bound):
                bridge.owner_view = view = await in_thread(
                    partial(owner_view, config.home, signed, config.network.join)
                )
                if view is not None:
                    link = f"{bound.url}#owner={view.key}"
                    say(f"For you, the run's owner, with the invitation: {link}")
            reference = (
                ReferenceFile(user_path(given.reference, "observer.reference"))
                if given.reference
                else None
            )
            while True:
                curve = reference.curve() if reference is not None else None
                bridge.publish(msgspec.structs.replace(journal.status(), reference=curve))
                await trio.sleep(PUBLISH_S)


async def find_members(network: LibP2PNetwork, signed: SignedManifest) -> None:
    """Find the run's members in the DHT. An observer does not announce itself."""

    await network.find_providers(signed.run)
