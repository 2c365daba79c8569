"""A node, put together: network, worker, disk and engine, its control socket and its journal.

The composition root of `hypergpud start`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
import trio
from msgspec import UNSET

from daemon.chain.certified_feed import CertifiedFeed
from daemon.chain.client_setup import check_profile
from daemon.chain.home_runs import keep_manifest
from daemon.chain.payee import Payee
from daemon.config.settings import Config
from daemon.control.server import Handler, serve_control
from daemon.device.process.trainer import WorkerTrainer
from daemon.device.settings import WorkerSettings
from daemon.disk.file_disk import FileDisk
from daemon.disk.task_file import load_task, save_task
from daemon.home.home_watcher import watch_home
from daemon.home.layout import BULK_CERTIFICATE_FILE, JOURNAL_FILE
from daemon.home.serials import SERIALS_FILE, Serials
from daemon.journal import Journal, dates_of_certificates
from daemon.network.network import LibP2PNetwork
from daemon.network.port_holder import port_holder
from daemon.network.tls.certificate import load_or_make
from daemon.node.discovery import (
    announce,
    manifest_of_others,
    network_settings,
    remember_members,
)
from daemon.node.duplicate_key import DuplicateKeyDetector
from daemon.node.run_choice import begin_run
from daemon.node.shutdown import SHUTDOWN_S, ForcedExit, Shutdown, watch_lifeline, watch_signals
from daemon.services.training.engine import Engine, check_engine
from daemon.services.training.hivemind.engine import HivemindEngine
from daemon.services.training.hivemind.settings import peer_settings
from daemon.services.training.native.engine import NativeEngine
from daemon.system.allocator import trim_memory
from daemon.system.offload import in_thread
from daemon.version import version
from daemon.wallet.password import Password
from protocol.chain.reputation import HOUR_S, WINDOW_HOURS
from protocol.codec import implementation as codecs
from protocol.digest import SHOWN_DIGITS
from protocol.errors import UserError
from protocol.identity import PeerId, Signer
from protocol.journal import (
    InputRefused,
    NodeStarted,
    NodeStopped,
    TrafficReport,
    Trouble,
    Warned,
)
from protocol.messages.offer import Binding
from protocol.ports.disk import Disk, DiskFull
from protocol.ports.network import Network
from protocol.ports.trainer import Trainer
from protocol.rules.versions import check_rules
from protocol.run.admission import falls_short
from protocol.run.manifest import SignedManifest

# Between looks at traffic and refusals: what the page can show as now.
REPORT_S = 2.0


def node_started(signed: SignedManifest, network: Network, *, name: str, role: str) -> NodeStarted:
    """The journal's first event of a life."""
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
    )


async def report_network(network: Network, journal: Journal) -> None:
    """What the network counts, into the journal."""
    before: dict[str, int] = {}
    while True:
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


async def run(
    config: Config,
    manifest: SignedManifest | None,
    signer: Signer,
    secret: bytes,
    journal: Journal,
    lifeline: int | None,
    say: Callable[[str], None],
    password: Password | None = None,
) -> int:
    """A node's whole life. Returns the exit status."""
    ending, begun, status = Shutdown(), trio.Event(), 0
    with trio.CancelScope() as scope, ForcedExit(ending, scope.cancel) as leave_now:
        async with trio.open_nursery() as nursery:
            serials = Serials(config.home / SERIALS_FILE)
            await nursery.start(watch_signals, ending, leave_now)
            if lifeline is not None:
                nursery.start_soon(watch_lifeline, ending, lifeline, leave_now)
            nursery.start_soon(trim_memory)
            nursery.start_soon(journal.run)
            nursery.start_soon(serials.keep)
            nursery.start_soon(_leave_at_last, ending, begun, leave_now)

            def lose_home(lost: UserError) -> None:
                ending.fail(lost)
                journal.forget_file()
                leave_now()

            nursery.start_soon(watch_home, config.home, secret, lose_home)
            await nursery.start(serve_control, config.home, _commands(journal, ending))
            if manifest is None:
                say("Asking the node we join which run this is.")
                manifest = await manifest_of_others(config, say)
                await in_thread(partial(begin_run, config, manifest))
            status = await _live(
                config,
                manifest,
                signer,
                secret,
                serials,
                journal,
                ending,
                begun,
                nursery,
                say,
                password,
            )
            leave_now()
    if ending.failure is None:  # a home that is lost takes nothing
        # Then the next life's numbers begin a little higher.
        with suppress(DiskFull):
            await trio.to_thread.run_sync(serials.close)
    journal.record(NodeStopped(reason=ending.reason or "left at once"))
    await trio.to_thread.run_sync(journal.flush)
    say(f"Stopped: {ending.reason or 'left at once'}.")
    return ending.exit_code or status


def _commands(journal: Journal, ending: Shutdown) -> dict[str, Handler]:
    """What the control socket answers, from the first moment on."""

    async def status() -> bytes:
        return msgspec.json.encode(journal.status())

    async def stop() -> bytes:
        ending.wish("asked to stop by hypergpud stop")
        return b"{}"

    return {"status": status, "stop": stop}


async def _leave_at_last(
    ending: Shutdown, begun: trio.Event, leave_now: Callable[[], None]
) -> None:
    """The engine ends in order.

    Should that take too long, leave anyway; before it has begun there is nothing to keep.
    """
    await ending.wait()
    if begun.is_set():
        await trio.sleep(SHUTDOWN_S)
    leave_now()


async def _live(
    config: Config,
    signed: SignedManifest,
    signer: Signer,
    secret: bytes,
    serials: Serials,
    journal: Journal,
    ending: Shutdown,
    begun: trio.Event,
    nursery: trio.Nursery,
    say: Callable[[str], None],
    password: Password | None,
) -> int:
    """Until the node is to end.

    Returns 1 when the task failed for good before anything was trained, else 0.
    """
    manifest = signed.open()
    # Before anything is written in the run's folder.
    check_rules(manifest.rules, signed.run.hex()[:SHOWN_DIGITS])
    check_engine(manifest.engine)
    check_profile(manifest)
    await in_thread(partial(keep_manifest, config.home, signed))
    earning = Payee(
        home=config.home,
        settings=config.chain,
        oracle=config.oracle,
        signed=signed,
        peer=signer.peer,
        name=config.node.name,
        password=password,
        record=journal.record,
    )
    binding = await in_thread(earning.prepare)
    week_ago_s = time.time() - WINDOW_HOURS * HOUR_S
    journal.remember(
        await in_thread(lambda: dates_of_certificates(config.home / JOURNAL_FILE, week_ago_s))
    )
    disk = FileDisk(
        config.home,
        in_thread,
        report=lambda words: journal.record(Warned(code="DAMAGED", message=words)),
    )
    feed = CertifiedFeed(
        disk, signed, in_thread, journal.record, (earning.figures.add, journal.certified)
    )
    key_use = DuplicateKeyDetector(config, signer.peer, serials, journal)
    settings = msgspec.structs.replace(
        network_settings(config), serials=serials.next, on_key_observed=key_use.saw
    )
    network = LibP2PNetwork(
        settings, secret, load_or_make(config.home / BULK_CERTIFICATE_FILE, config.node.name)
    )
    worker = WorkerTrainer(
        manifest,
        signer.peer,
        WorkerSettings(
            device=config.worker.device,
            threads=config.worker.threads,
            nice=config.worker.nice,
            precision=config.worker.precision,
            allow_custom_task=config.worker.allow_custom_task,
            data_folders=config.worker.data_folders,
            load_timeout_s=config.worker.load_timeout_s,
        ),
        journal.record,
        before=await in_thread(partial(load_task, config.home, signed.run)),
    )
    admission = manifest.admission
    registered_only = admission is not UNSET and admission.policy == "registered"

    def left_out(peer: PeerId) -> str:
        short_of = falls_short(manifest, peer, journal.reputation(peer))
        return short_of or (earning.left_out(peer) if registered_only else "")

    engine = _engine(
        config, signed, signer, serials, network, worker, disk, journal, binding, left_out
    )
    earning.serve(network, in_thread)

    async with worker.running(), network.running():
        journal.record(node_started(signed, network, name=config.node.name, role="node"))
        if codecs().startswith("numpy"):
            journal.record(
                Warned(code="CODECS", message=f"codecs are slower than they could be: {codecs()}")
            )
        nursery.start_soon(report_network, network, journal)
        nursery.start_soon(key_use.run, network)
        if network.lost_port:
            journal.record(Trouble(code="PORT", level="warning", message=_lost_port(network)))
        nursery.start_soon(remember_members, config.home, signed, network, journal)
        say(
            f"Run {manifest.name} ({signed.run.hex()[:12]}): task {manifest.task}, rounds of {manifest.round.seconds:g} s. Starting the worker."
        )
        async with trio.open_nursery() as living:
            living.start_soon(_finish_when_wished, ending, engine.finish)
            living.start_soon(announce, network, signed)
            living.start_soon(feed.run)
            await living.start(_run_engine, engine, living.cancel_scope)
            begun.set()
            living.start_soon(_keep_task, config.home, signed, worker, journal)
            living.start_soon(earning.run, network, feed.caught_up, in_thread)
            for address in network.addresses[1:]:
                say(f"Also reachable at {address}")
            if config.network.listen_host == "0.0.0.0" and network.addresses[0].startswith(
                "/ip4/127."
            ):
                say(
                    "No network was found: only nodes on this machine can join, until it has one and the node is started again."
                )
            if network.lost_port:
                say(f"Attention: {_lost_port(network)}.")
            say(f"Ready: others join with  hypergpud start --join {network.addresses[0]}")
    return 1 if worker.gave_up and not worker.trained else 0


def _lost_port(network: LibP2PNetwork) -> str:
    """What a port that another program took means, and what to do."""
    holder = port_holder(network.lost_port) or "another program"
    return (
        f"port {network.lost_port}, where others look for this node, is taken by {holder}: this node listens on {network.port} until it is"
        f" started again, and what a router forwards to {network.lost_port} does not arrive. Stop that program and start again, or keep the"
        f" new port: hypergpud start --port {network.port}"
    )


def _engine(
    config: Config,
    signed: SignedManifest,
    signer: Signer,
    serials: Serials,
    network: Network,
    worker: Trainer,
    disk: Disk,
    journal: Journal,
    binding: Binding | None,
    left_out: Callable[[PeerId], str],
) -> Engine:
    """The engine that the manifest names. Raises `UserError` for a run that it cannot do."""
    if signed.open().engine == "hivemind":
        given = config.network
        return HivemindEngine(
            name=config.node.name,
            manifest=signed,
            signer=signer,
            network=network,
            trainer=worker,
            disk=disk,
            offload=in_thread,
            record=journal.record,
            serial=serials.next,
            wall_s=time.time,
            peer=peer_settings(given.listen_host, given.hivemind_port, given.advertise),
        )
    return NativeEngine(
        name=config.node.name,
        manifest=signed,
        signer=signer,
        network=network,
        trainer=worker,
        disk=disk,
        offload=in_thread,
        record=journal.record,
        serial=serials.next,
        binding=binding,
        left_out=left_out,
    )


async def _keep_task(home: Path, signed: SignedManifest, worker: Trainer, journal: Journal) -> None:
    """So that the next start knows whether its task can read the model that this one trains."""
    task = (await worker.describe()).task
    try:
        await in_thread(partial(save_task, home, signed.run, task))
    except DiskFull as full:
        journal.record(
            Warned(
                code="DISK_FULL",
                message=f"the next start will not know whether its task is the same: {full}",
            )
        )


async def _run_engine(
    engine: Engine,
    scope: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """When the engine is done, so is the node."""
    await engine.run(task_status=task_status)
    scope.cancel()


async def _finish_when_wished(ending: Shutdown, finish: Callable[[], None]) -> None:
    await ending.wait()
    finish()
