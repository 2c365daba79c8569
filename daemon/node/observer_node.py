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

from daemon.chain.rewards_watch import watch_rewards
from daemon.config.settings import Config
from daemon.home.layout import BULK_CERTIFICATE_FILE, ensure_home, user_path
from daemon.journal import Journal
from daemon.network.network import LibP2PNetwork
from daemon.network.tls.certificate import load_or_make
from daemon.node.discovery import network_settings
from daemon.node.manifest_search import find_manifest
from daemon.node.membership import keep_owner_records
from daemon.node.network_setup import clock_exchange, node_started, report_network
from daemon.node.observer_control import TrainingControl, owned_by, training_control
from daemon.node.observer_history import ObserverHistory, history_file, observer_history
from daemon.node.observer_rewards import RewardsLookup
from daemon.node.owner_orders import show, watch_orders
from daemon.node.owner_page import owner_view
from daemon.node.run_observer import RunObserver
from daemon.node.shutdown import ForcedExit, Shutdown, watch_lifeline, watch_signals
from daemon.observer.bridge import Bridge
from daemon.observer.owner_view import may_show
from daemon.observer.reference_file import ReferenceFile
from daemon.observer.server import web_server
from daemon.observer.settings import BoundAddress, ObserverSettings
from daemon.services.inference.coverage_watch import CoverageWatch
from daemon.system.allocator import trim_memory
from daemon.system.offload import in_abandonable_thread, in_thread
from protocol.identity import Signer
from protocol.membership.owner_record import OwnerRecords
from protocol.run.manifest import SignedManifest

REPORTS_FILE = "reports.sqlite"
# Between two updates of the page.
PUBLISH_S = 1.0


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
        origins=given.origins,
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
        bridge.rewards = rewards = RewardsLookup(config.chain, signed, config.home)
        path = history_file(config.home, signed.run)
        async with observer_history(bridge, journal, path, given.history_mb) as history:
            watcher = RunObserver(network, signer, signed, name, journal, history.recorder.date_of)
            # Nodes ask every neighbour for its clock. The observer only answers.
            clock_exchange(network, journal)
            async with network.running(), trio.open_nursery() as nursery:
                journal.record(node_started(signed, network, name=name, role="observer"))
                nursery.start_soon(watcher.run)
                nursery.start_soon(report_network, network, journal)
                nursery.start_soon(find_members, network, signed)
                nursery.start_soon(CoverageWatch(network, journal.record, watcher.refuse).run)
                if rewards.asks_chain:
                    nursery.start_soon(
                        watch_rewards, rewards.pool, journal.record, in_abandonable_thread
                    )
                if watcher.owner_records is not None:
                    records = watcher.owner_records
                    bridge.control = await _take_orders(config, signed, records, journal, nursery)
                say(f"Ready: the page is at {bound.url}")
                if may_show(settings, bound):
                    await _show_invitation(config, signed, bridge, bound, say)
                await _publish(bridge, journal, history, given.reference)


async def _take_orders(
    config: Config,
    signed: SignedManifest,
    records: OwnerRecords,
    journal: Journal,
    nursery: trio.Nursery,
) -> TrainingControl:
    """Show the owner's orders, and return what takes them over HTTP."""
    home = config.home
    owned = await in_thread(partial(owned_by, home, signed))
    if owned is not None:
        nursery.start_soon(keep_owner_records, home, signed, records, journal)
    nursery.start_soon(watch_orders, records, journal, show)
    return await training_control(home, signed, records, owned, journal)


async def _show_invitation(
    config: Config,
    signed: SignedManifest,
    bridge: Bridge,
    bound: BoundAddress,
    say: Callable[[str], None],
) -> None:
    """Let the run's owner see the invitation on the page, and print the link to it."""
    bridge.owner_view = view = await in_thread(
        partial(owner_view, config.home, signed, config.network.join)
    )
    if view is not None:
        link = f"{bound.url}#owner={view.key}"
        say(f"For you, the run's owner, with the invitation: {link}")


async def _publish(
    bridge: Bridge, journal: Journal, history: ObserverHistory, reference: str
) -> None:
    """Publish the status until cancelled; `reference` is the path of a curve, or empty."""
    file = ReferenceFile(user_path(reference, "observer.reference")) if reference else None
    while True:
        status = journal.status()
        history.published(status)
        curve = file.curve() if file is not None else None
        bridge.publish(msgspec.structs.replace(status, reference=curve))
        await trio.sleep(PUBLISH_S)


async def find_members(network: LibP2PNetwork, signed: SignedManifest) -> None:
    """Find the run's members in the DHT. An observer does not announce itself."""

    await network.find_providers(signed.run)
