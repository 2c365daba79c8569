"""The composition root of `hypergpud serve`: a node whose one service is a stage of a model."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec
import trio

from daemon.config.settings import Config
from daemon.control.server import serve_control
from daemon.home.home_watcher import watch_home
from daemon.home.layout import BULK_CERTIFICATE_FILE
from daemon.home.serials import SERIALS_FILE, Serials
from daemon.network.network import LibP2PNetwork
from daemon.network.tls.certificate import load_or_make
from daemon.node.discovery import network_settings
from daemon.node.shutdown import ForcedExit, Shutdown, watch_lifeline, watch_signals
from daemon.results.served_model import open_served_model
from daemon.services.inference.service import InferenceService, StageSettings
from daemon.system.allocator import trim_memory
from protocol.digest import SHOWN_DIGITS
from protocol.errors import UserError
from protocol.identity import PeerId, Signer
from protocol.inference.layers import parse_layers
from protocol.inference.model import ModelManifest

_log = logging.getLogger(__name__)


class StageChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asks a node to serve."""

    model: str
    # "a:b", a number of layers, or "" for all of them.
    layers: str
    # 0: four generations of the model's context.
    cache_tokens: int


class StageReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a running stage answers to `hypergpud generate` of the same home."""

    model: str
    name: str
    addresses: tuple[str, ...]
    generations: int
    detail: str


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
    say(f"Reading {choice.model}.")
    local = await open_served_model(config, choice.model, say)
    settings = _settings(config, choice, local.manifest)
    service = InferenceService(local, settings, signer, serials.next, _refuse, say)
    network = LibP2PNetwork(
        msgspec.structs.replace(network_settings(config), serials=serials.next),
        secret,
        load_or_make(config.home / BULK_CERTIFICATE_FILE, config.node.name),
    )
    service.register(network)

    async def report() -> bytes:
        return msgspec.json.encode(
            StageReport(
                model=service.model.hex(),
                name=local.manifest.name,
                addresses=network.addresses,
                generations=service.open_generations,
                detail=service.status().detail,
            )
        )

    async def stop() -> bytes:
        shutdown.request("asked to stop by hypergpud stop")
        return b"{}"

    async with service.resources(), network.running(), trio.open_nursery() as nursery:
        await nursery.start(serve_control, config.home, {"stage": report, "stop": stop})
        await nursery.start(service.run)
        info, model = service.info, service.model.hex()[:SHOWN_DIGITS]
        assert info is not None
        say(
            f"Serving layers {info.layers} of {local.manifest.name} ({model}) on {info.device},"
            f" {info.layer_tokens_per_s / len(info.layers):.0f} tokens/s alone,"
            f" room for {info.cache_tokens} tokens."
        )
        say(f"Ready: hypergpud generate PROMPT --join {network.addresses[0]}")
        await shutdown.wait()
        service.finish()


def _settings(config: Config, choice: StageChoice, manifest: ModelManifest) -> StageSettings:
    """Return what the stage serves. Raises `UserError("LAYERS")`."""
    count = int(choice.layers) if choice.layers.isdecimal() else manifest.layers
    if not 1 <= count <= manifest.layers:
        raise UserError(
            "LAYERS",
            f"A stage of {count} layers is asked for.",
            why=f"{manifest.name} has {manifest.layers} layers",
            fix=f"--layers {manifest.layers}, or leave --layers out",
            exit_code=2,
        )
    layers = parse_layers(choice.layers, manifest.layers) if ":" in choice.layers else None
    if layers is None and count == manifest.layers:
        layers = parse_layers(f"0:{count}", manifest.layers)
    return StageSettings(
        name=config.node.name,
        layers=layers,
        count=count,
        cache_tokens=choice.cache_tokens or 4 * manifest.context,
    )


def _refuse(reason: str, peer: PeerId, detail: str) -> None:
    _log.warning("refused (%s) from %s: %s", reason, peer, detail)
