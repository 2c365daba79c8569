"""Writes shards of a model to files, for members that do not have it. Worker process only."""

from __future__ import annotations

import os
from pathlib import Path

from daemon.device.stages.messages import ExportShards
from daemon.device.stages.weights.folder import SafetensorsFolder
from daemon.device.stages.weights.open_source import open_source
from daemon.device.stages.weights.run_file import RunFile
from daemon.device.stages.weights.shard_folder import ShardFolder
from daemon.device.stages.weights.shards import write_shard
from daemon.device.stages.weights.source import shard_count, shard_name, unusable
from protocol.errors import UserError

# Members that serve come before those that fetch.
EXPORT_NICE = 10


def export_shards(wanted: ExportShards) -> None:
    """Write the shards. Raises `UserError`: "MODEL", and "DISK" where the disk refuses."""
    os.nice(EXPORT_NICE)
    place, folder = Path(wanted.source), Path(wanted.folder)
    source = open_source(place)
    if not isinstance(source, SafetensorsFolder | RunFile | ShardFolder):
        raise unusable(
            place,
            "the blocks of a GGUF file do not travel between members",
            "serve the same model from a folder with safetensors",
        )
    made = source.architecture
    shards = {shard_name(made, shard): shard for shard in range(shard_count(made))}
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in wanted.names:
            write_shard(source, shards[name], folder)
    except OSError as error:
        raise UserError(
            "DISK",
            f"Cannot write shards to {folder}.",
            why=error.strerror or str(error),
            fix="free some space there",
        ) from None
