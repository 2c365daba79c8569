"""The composition root of `hypergpud serve`: a node whose one service is a stage of a model."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec
import trio

from daemon.config.settings import Config
from daemon.control.server import Handler, serve_control
from daemon.home.home_watcher import watch_home
from daemon.home.layout import BULK_CERTIFICATE_FILE
from daemon.home.serials import SERIALS_FILE, Serials
from daemon.network.network import LibP2PNetwork
from daemon.network.tls.certificate import load_or_make
from daemon.node.discovery import network_settings
from daemon.node.shutdown import ForcedExit, Shutdown, watch_lifeline, watch_signals
from daemon.node.stage_report import report_stage
from daemon.node.stage_setup import StageChoice, stage_service
from daemon.system.allocator import trim_memory
from protocol.errors import UserError
from protocol.identity import PeerId, Signer

_log = logging.getLogger(__name__)


async def run(
    config: Config,
    choice: StageChoice,
    signer: Signer,
    secret: bytes,
    lifeline: int | None,
    say: Callable[[str], None],
) -> int:
    """Serve a stage until asked to stop. Returns the exit status."""
    shutdown = Shutdown()
    with trio.CancelScope() as scope, ForcedExit(shutdown, scope.cancel) as leave_now:
        async with trio.open_nursery() as nursery:
            serials = Serials(config.home / SERIALS_FILE)
            await nursery.start(watch_signals, shutdown, leave_now)
            if lifeline is not None:
                nursery.start_soon(watch_lifeline, shutdown, lifeline, leave_now)
            nursery.start_soon(trim_memory)
            nursery.start_soon(serials.keep)

            def lose_home(lost: UserError) -> None:
                shutdown.fail(lost)
                leave_now()

            nursery.start_soon(watch_home, config.home, secret, lose_home)
            nursery.start_soon(_leave_when_asked, shutdown, leave_now)
            await _serve(config, choice, signer, secret, serials, shutdown, say)
            leave_now()
    await trio.to_thread.run_sync(serials.close)
    say(f"Stopped: {shutdown.reason or 'left at once'}.")
    return shutdown.exit_code


async def _leave_when_asked(shutdown: Shutdown, leave_now: Callable[[], None]) -> None:
    """End at once: a stage has nothing to write down, and clients go on elsewhere."""
    await shutdown.wait()
    leave_now()


async def _serve(
    config: Config,
    choice: StageChoice,
    signer: Signer,
    secret: bytes,
    serials: Serials,
    shutdown: Shutdown,
    say: Callable[[str], None],
) -> None:
    service = await stage_service(config, choice, signer, serials.next, _refuse, say)
    network = LibP2PNetwork(
        msgspec.structs.replace(network_settings(config), serials=serials.next),
        secret,
        load_or_make(config.home / BULK_CERTIFICATE_FILE, config.node.name),
    )
    service.register(network)

    async def report() -> bytes:
        return report_stage(service, network)

    async def status() -> bytes:
        raise UserError(
            "STAGE",
            f"This home serves a model and is in no run: {service.status().detail or 'loading'}.",
            why="only a node of a run has a status",
            fix="hypergpud stop ends the stage",
        )

    async def stop() -> bytes:
        shutdown.request("asked to stop by hypergpud stop")
        return b"{}"

    async with service.resources(), network.running(), trio.open_nursery() as nursery:
        handlers: dict[str, Handler] = {"stage": report, "status": status, "stop": stop}
        await nursery.start(serve_control, config.home, handlers)
        await nursery.start(service.run)
        say(f"Ready: hypergpud generate PROMPT --join {network.addresses[0]}")
        await shutdown.wait()
        service.finish()


def _refuse(reason: str, peer: PeerId, detail: str) -> None:
    _log.warning("refused (%s) from %s: %s", reason, peer, detail)
