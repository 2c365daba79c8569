"""Fetches a stage's part of a model from the stages that serve it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from daemon.config.settings import Config
from daemon.device.process.local_model import ModelOnDisk
from daemon.disk.atomic import write_atomically
from daemon.models.known_models import SHARDS_MANIFEST
from daemon.node.model_client import JoinedModel, joined_model
from daemon.services.inference.service import LOOK_S, StageSettings
from daemon.services.inference.stage_server import Refuse
from daemon.services.inference.weight_fetch import WeightFetch
from daemon.services.training.worker_settings import shared_worker_settings
from daemon.system.offload import in_thread
from protocol.digest import SHOWN_DIGITS, Digest
from protocol.errors import UserError
from protocol.identity import PeerId
from protocol.inference.coverage import choose_range, holders_by_layer
from protocol.inference.layers import LayerRange
from protocol.inference.model import ModelManifest, encode_model
from protocol.inference.shard_transfer import shards_for
from protocol.ports.disk import DiskFull

FOLDER = "shards"


def shards_folder(home: Path, model: Digest) -> Path:
    """Return where a home keeps the shards of a model."""
    return home / FOLDER / model.hex()[:SHOWN_DIGITS]


async def fetch_served_model(
    config: Config,
    wanted: str,
    settings_of: Callable[[ModelManifest], StageSettings],
    refuse: Refuse,
    say: Callable[[str], None],
) -> tuple[ModelOnDisk, LayerRange]:
    """Fetch the shards of a stage into the home, and return the model and the stage's layers.

    Args:
        config: the settings, with the stages to join.
        wanted: the model's name for people, or the beginning of its id.
        settings_of: what the stage serves of a model.
        refuse: counts what a peer sent against the rules.
        say: shows a sentence to the person who started the node.

    Raises:
        UserError: as `joined_model` and `WeightFetch`, and "DISK" where the home has no room.
    """
    say(f"Asking the joined stages for {wanted}.")
    async with joined_model(config, wanted, refuse) as joined:
        settings = settings_of(joined.manifest)
        layers = settings.layers or await _least_served(joined, settings.count)
        folder = shards_folder(config.home, joined.model)

        def holders() -> list[PeerId]:
            known = joined.client.choice.holders()
            return [holder.peer for holder in sorted(known, key=lambda one: one.rtt_s)]

        fetch = WeightFetch(joined.network, holders, folder, in_thread, say)
        tied = msgspec.json.decode(joined.manifest.config, type=_Output).tied
        body = encode_model(joined.manifest)
        try:
            await fetch.run(shards_for(joined.manifest, layers, tied=tied))
            await in_thread(lambda: write_atomically(folder / SHARDS_MANIFEST, [memoryview(body)]))
        except DiskFull as full:
            raise UserError(
                "DISK",
                "The model's weights do not fit on this disk.",
                why=str(full),
                fix="free some space there, or serve fewer --layers",
            ) from None
        local = ModelOnDisk(
            folder, joined.manifest, joined.tokenizer_file, shared_worker_settings(config)
        )
    return local, layers


class _Output(msgspec.Struct, frozen=True, kw_only=True):
    """The one field of an architecture that decides which shards the last stage needs."""

    tied: bool = True


async def _least_served(joined: JoinedModel, count: int) -> LayerRange:
    """Return the layers that the swarm covers worst, as far as this node knows it."""
    await trio.sleep(LOOK_S)
    held = holders_by_layer(
        (one.layers for one in joined.client.choice.holders()), joined.manifest.layers
    )
    return choose_range(held, min(count, joined.manifest.layers))
