"""Opens the model that a path names. Worker process only."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from daemon.device.stages.weights.folder import SafetensorsFolder
from daemon.device.stages.weights.run_file import RunFile
from daemon.device.stages.weights.shard_folder import ShardFolder
from daemon.device.stages.weights.source import WeightSource, unusable
from daemon.models.known_models import CONFIG_FILE, SHARDS_MANIFEST
from protocol.errors import UserError

_GGUF = "*.gguf"


def open_source(place: Path) -> WeightSource:
    """Return the model at a path.

    It is a folder of `save_pretrained`, a GGUF file, a folder with one GGUF file, a file of
    `hypergpud export`, or a folder of shards from other members. Raises `UserError("MODEL")`, and
    "EXTRA" where GGUF's library is missing.
    """
    if (place / SHARDS_MANIFEST).is_file():
        return ShardFolder(place)
    if (place / CONFIG_FILE).is_file():
        return SafetensorsFolder(place)
    files = [place] if place.is_file() else sorted(place.glob(_GGUF))
    if len(files) != 1:
        raise unusable(
            place,
            f"it has no {CONFIG_FILE}, and {len(files)} GGUF files"
            if place.exists()
            else "it does not exist",
            "name a folder of save_pretrained, a GGUF file, or a file of hypergpud export",
        )
    if files[0].suffix != ".gguf":
        return RunFile(files[0])
    if find_spec("gguf") is None:
        raise UserError(
            "EXTRA",
            f"Cannot read {files[0]}.",
            why="the package gguf is not installed",
            fix="pip install 'hypergpu[hf]'",
            exit_code=2,
        )
    # A late import: the package belongs to an extra.
    from daemon.device.stages.weights.gguf_file import GgufFile  # noqa: PLC0415

    return GgufFile(files[0])
