"""The composition root of `hypergpud start`: home, network, services, chain and control socket.

`run` looks after the home and answers commands from the first moment on. Once the run is known, it
builds the parts in this order:

    disk ── chain (payee, certified feed) ── network ── services ── register ── network starts

A further service is one more entry in `_services`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial

import trio
from msgspec.structs import replace

from daemon.chain.client_setup import check_profile
from daemon.chain.home_runs import keep_manifest
from daemon.config.settings import Config
from daemon.control.server import serve_control
from daemon.disk.file_disk import FileDisk
from daemon.disk.task_file import load_task
from daemon.home.home_watcher import watch_home
from daemon.home.layout import JOURNAL_FILE
from daemon.home.run_membership import load_own_invitation, load_owner_records
from daemon.home.serials import SERIALS_FILE, Serials
from daemon.journal import Journal, dates_of_certificates
from daemon.network.network import LibP2PNetwork
from daemon.node.chain_setup import NodeChain
from daemon.node.control_commands import NodeControl
from daemon.node.discovery import announce, save_members
from daemon.node.disk_setup import node_disk
from daemon.node.duplicate_key import DuplicateKeyDetector
from daemon.node.limit_keeper import LimitKeeper
from daemon.node.manifest_search import manifest_of_others, with_members
from daemon.node.membership import (
    count_uses,
    keep_owner_records,
    leave_when_revoked,
    ready_line,
)
from daemon.node.network_setup import (
    address_lines,
    build_network,
    clock_exchange,
    lost_port_text,
    node_started,
    report_network,
)
from daemon.node.node_parts import NodeParts, Page
from daemon.node.owner_orders import node_obeys, watch_orders
from daemon.node.run_choice import enter_run
from daemon.node.shutdown import (
    ForcedExit,
    Shutdown,
    leave_when_late,
    watch_lifeline,
    watch_signals,
)
from daemon.node.stage_setup import configured_stage
from daemon.node.verdict_log import log_verdict
from daemon.services.service import Service, ServiceContext
from daemon.services.training.engine import check_engine
from daemon.services.training.service import TrainingService
from daemon.system.allocator import trim_memory
from daemon.system.machine_sensors import MachineSensors
from daemon.system.offload import in_thread
from daemon.system.service_manager import READY, notify
from daemon.system.trio_types import TaskStatus
from daemon.wallet.password import Password
from protocol.chain.reputation import HOUR_S, WINDOW_HOURS
from protocol.codec import implementation as codecs
from protocol.digest import SHOWN_DIGITS
from protocol.errors import UserError
from protocol.identity import Signer
from protocol.journal import NodeStopped, Trouble, Warned
from protocol.membership.invitation_token import Invitation
from protocol.membership.owner_record import OwnerRecords
from protocol.planning.round_length import length_bounds
from protocol.ports.disk import DiskFull
from protocol.rules.versions import check_rules
from protocol.run.manifest import SignedManifest


async def run(
    config: Config,
    manifest: SignedManifest | None,
    signer: Signer,
    secret: bytes,
    journal: Journal,
    lifeline: int | None,
    say: Callable[[str], None],
    password: Password | None = None,
    invitation: Invitation | None = None,
    page: Page | None = None,
) -> int:
    """Run a node until it is asked to stop. Returns the exit status.

    Without a manifest the nodes to join are asked for theirs, or for that of the invitation.
    """
    shutdown, begun, status = Shutdown(), trio.Event(), 0
    with trio.CancelScope() as scope, ForcedExit(shutdown, scope.cancel) as leave_now:
        async with trio.open_nursery() as nursery:
            serials = Serials(config.home / SERIALS_FILE)
            node = NodeParts(
                config=config,
                signer=signer,
                secret=secret,
                password=password,
                serials=serials,
                journal=journal,
                shutdown=shutdown,
                page=page,
                say=say,
            )
            await nursery.start(watch_signals, shutdown, leave_now)
            if lifeline is not None:
                nursery.start_soon(watch_lifeline, shutdown, lifeline, leave_now)
            nursery.start_soon(trim_memory)
            nursery.start_soon(journal.run)
            nursery.start_soon(log_verdict, journal)
            nursery.start_soon(serials.keep)
            nursery.start_soon(leave_when_late, shutdown, begun, leave_now)

            def lose_home(lost: UserError) -> None:
                shutdown.fail(lost)
                journal.forget_file()
                leave_now()

            nursery.start_soon(watch_home, config.home, secret, lose_home)
            control = NodeControl(journal, shutdown)
            nursery.start_soon(control.run)
            await nursery.start(serve_control, config.home, control.handlers())
            if page is not None:
                node = replace(node, page_url=await nursery.start(page.run))
            if manifest is None:
                say("Asking the node at --join for its run.")
                manifest = await manifest_of_others(
                    config, say, invitation.run if invitation else None
                )
                await in_thread(partial(enter_run, config, manifest, signer.peer, invitation))
                # The run is known only now, and with it the members that this home met before.
                node = replace(node, config=with_members(config, manifest))
            status = await _work(node, manifest, begun, control)
            leave_now()
    # Nothing may be written into a home that was lost.
    if shutdown.failure is None:
        # A clean stop lets the numbers of the next start begin only a little higher.
        with suppress(DiskFull):
            await trio.to_thread.run_sync(serials.close)
    reason = shutdown.reason or "left at once"
    journal.record(NodeStopped(reason=reason))
    await trio.to_thread.run_sync(journal.flush)
    say(f"Stopped: {reason}.")
    return shutdown.exit_code or status


async def _work(
    node: NodeParts, signed: SignedManifest, begun: trio.Event, control: NodeControl
) -> int:
    """Work on the run until the services end. `begun` is set once all of them have begun.

    Returns 1 when a service could not do any work, else 0.
    """
    home, journal = node.config.home, node.journal
    # Check first: nothing may be written into the folder of a run that this version cannot do.
    manifest = signed.open()
    check_rules(manifest.rules, signed.run.hex()[:SHOWN_DIGITS])
    check_engine(manifest.engine)
    check_profile(manifest)
    await in_thread(partial(keep_manifest, home, signed))
    disk = node_disk(node.config, journal)
    chain = NodeChain(node, signed, disk)
    records = await in_thread(partial(load_owner_records, home, signed))
    services = await _services(node, signed, disk, chain, records)
    week_ago_s = time.time() - WINDOW_HOURS * HOUR_S
    journal.remember(
        await in_thread(lambda: dates_of_certificates(home / JOURNAL_FILE, week_ago_s))
    )
    detector = DuplicateKeyDetector(node.config, node.signer.peer, node.serials, journal)
    network = build_network(node, signed, detector)
    for service in services:
        service.register(network)
    chain.register(network)
    clocks = clock_exchange(network, journal)
    async with AsyncExitStack() as resources:
        for service in services:
            await resources.enter_async_context(service.resources())
        await resources.enter_async_context(network.running())
        _record_start(node, signed, network)
        async with trio.open_nursery() as background:
            background.start_soon(report_network, network, journal)
            background.start_soon(detector.run, network)
            background.start_soon(clocks.run)
            background.start_soon(save_members, home, signed, network, journal)
            background.start_soon(keep_owner_records, home, signed, records, journal)
            background.start_soon(count_uses, node, signed, records)
            background.start_soon(leave_when_revoked, node, manifest, records)
            keeper = LimitKeeper(
                node.config, MachineSensors(home, node.config.worker.device), journal.record
            )
            await keeper.look()
            if keeper.pauses:
                await control.hold_for_limits(services, True)
            async with trio.open_nursery() as working:
                working.start_soon(_finish_on_request, node.shutdown, services)
                working.start_soon(announce, network, signed)
                working.start_soon(chain.feed.run)
                running = set(services)
                for service in services:
                    await working.start(_run_service, service, running, working.cancel_scope)
                begun.set()
                control.serves(services, manifest.round.seconds, network)
                working.start_soon(keeper.run, partial(control.hold_for_limits, services))
                obey = node_obeys(node, control)
                working.start_soon(watch_orders, records, journal, obey)
                working.start_soon(chain.run, network)
                if node.page is not None:
                    await node.page.show_run(signed, records)
                for line in address_lines(node, network):
                    node.say(line)
                node.say(await in_thread(partial(ready_line, node, signed, network.addresses)))
                notify(READY)
            background.cancel_scope.cancel()
    return 1 if any(service.status().state == "failed" for service in services) else 0


async def _services(
    node: NodeParts,
    signed: SignedManifest,
    disk: FileDisk,
    chain: NodeChain,
    records: OwnerRecords,
) -> list[Service]:
    """Return the services of this node. None of them has started."""
    context = ServiceContext(
        config=node.config,
        manifest=signed,
        signer=node.signer,
        disk=disk,
        offload=in_thread,
        record=node.journal.record,
        next_serial=node.serials.next,
        invitation=await in_thread(partial(load_own_invitation, node.config.home, signed.run)),
        owner_records=records,
    )
    training = TrainingService(
        context,
        binding=await chain.prepare(),
        exclusion_reason=chain.exclusion_reason,
        previous_task=await in_thread(partial(load_task, node.config.home, signed.run)),
    )
    return [training, *await configured_stage(node)]


def _record_start(node: NodeParts, signed: SignedManifest, network: LibP2PNetwork) -> None:
    """Record how the node started, and tell the person what happens next."""
    journal, manifest = node.journal, signed.open()
    journal.record(node_started(signed, network, name=node.config.node.name, role="node"))
    if codecs().startswith("numpy"):
        message = f"The codecs run without their C loops and are slower: {codecs()}"
        journal.record(Warned(code="CODECS", message=message))
    if network.lost_port:
        journal.record(Trouble(code="PORT", level="warning", message=lost_port_text(network)))
    node.say(
        f"Run {manifest.name} ({signed.run.hex()[:12]}): task {manifest.task},"
        f" {length_bounds(manifest.round)}. Starting the worker."
    )


async def _run_service(
    service: Service,
    running: set[Service],
    scope: trio.CancelScope,
    *,
    task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a service; end the node when the service ends, after the others ended in order."""
    await service.run(task_status=task_status)
    running.remove(service)
    for other in running:
        other.finish()
    if not running:
        scope.cancel()


async def _finish_on_request(shutdown: Shutdown, services: Sequence[Service]) -> None:
    await shutdown.wait()
    for service in services:
        service.finish()
