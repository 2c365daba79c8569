"""Makes the inference service that a person asked for, by a command or by the settings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from daemon.config.settings import Config
from daemon.node.model_fetch import fetch_served_model, shards_folder
from daemon.node.node_parts import NodeParts
from daemon.results.served_model import open_served_model
from daemon.services.inference.receipt_desk import ReceiptDesk
from daemon.services.inference.receipt_folder import ReceiptFolder, load_receipts
from daemon.services.inference.service import InferenceService, StageSettings
from daemon.services.inference.stage_server import Refuse
from daemon.services.service import Service
from daemon.system.offload import in_thread
from protocol.errors import UserError
from protocol.identity import PeerId, Signer
from protocol.inference.layers import parse_layers
from protocol.inference.model import ModelManifest, model_name
from protocol.journal import InputRefused, JournalEvent


class StageChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asks a node to serve."""

    model: str
    # "a:b", a number of layers, or "" for all of them.
    layers: str
    # 0: four generations of the model's context.
    cache_tokens: int
    # Whether the joined stages give the model, and this machine does not have it.
    fetch: bool = False


async def stage_service(
    config: Config,
    choice: StageChoice,
    signer: Signer,
    next_serial: Callable[[], int],
    refuse: Refuse,
    say: Callable[[str], None],
    record: Callable[[JournalEvent], None] | None = None,
) -> InferenceService:
    """Read the model, and return its service, which has started nothing.

    `record` receives who serves which layers.

    Raises:
        UserError: "LAYERS" for layers that the model does not have, and the errors of
            `open_served_model`.
    """
    if choice.fetch:
        local, layers = await fetch_served_model(
            config, choice.model, lambda manifest: _settings(config, choice, manifest), refuse, say
        )
        choice = msgspec.structs.replace(choice, layers=str(layers))
    else:
        say(f"Reading {choice.model}.")
        local = await open_served_model(config, choice.model, say)
    settings = _settings(config, choice, local.manifest)
    held = await in_thread(partial(load_receipts, config.home, say))
    folder = ReceiptFolder(config.home, in_thread)
    desk = ReceiptDesk(model_name(local.manifest), signer, folder.keep, held)
    return InferenceService(local, settings, desk, next_serial, refuse, say, record=record)


async def configured_stage(node: NodeParts) -> list[Service]:
    """Return the stage that the node's settings ask for; none where they name no model."""
    served = node.config.inference
    if not served.model:
        return []
    choice = StageChoice(model=served.model, layers=served.layers, cache_tokens=served.cache_tokens)

    def refuse(reason: str, peer: PeerId, detail: str) -> None:
        node.journal.record(InputRefused(reason=reason, peer=peer, detail=detail))

    return [
        await stage_service(
            node.config,
            choice,
            node.signer,
            node.serials.next,
            refuse,
            node.say,
            node.journal.record,
        )
    ]


def _settings(config: Config, choice: StageChoice, manifest: ModelManifest) -> StageSettings:
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
        shards=shards_folder(config.home, model_name(manifest)),
    )
