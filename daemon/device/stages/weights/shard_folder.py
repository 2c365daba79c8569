"""Reads the shards of a model that came from other members. Worker process only.

The folder has a file for each shard, which its digest names, and the model's manifest. A stage
needs the shards of its layers, and the others may be absent.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import torch

from daemon.device.stages.architecture import Architecture
from daemon.device.stages.weights.shards import DTYPES, read_shard
from daemon.device.stages.weights.source import RawTensor, shard_count, unusable
from daemon.models.known_models import SHARDS_MANIFEST
from protocol.inference.model import MAX_MODEL_MANIFEST_BYTES, ModelManifest
from protocol.messages.base import UNREADABLE


class ShardFolder:
    """Satisfies `WeightSource`."""

    def __init__(self, folder: Path) -> None:
        """Read the manifest. Raises `UserError("MODEL")`."""
        self._folder = folder
        try:
            with (folder / SHARDS_MANIFEST).open("rb") as stream:
                data = stream.read(MAX_MODEL_MANIFEST_BYTES)
            self._manifest = msgspec.msgpack.decode(data, type=ModelManifest)
            self.architecture = msgspec.json.decode(self._manifest.config, type=Architecture)
        except (OSError, *UNREADABLE) as error:
            raise unusable(folder, f"{SHARDS_MANIFEST} cannot be read: {error}") from None
        if len(self._manifest.shards) != shard_count(self.architecture):
            raise unusable(folder, f"its manifest names {len(self._manifest.shards)} shards")
        self._open: dict[int, dict[str, RawTensor]] = {}

    def raw(self, shard: int, name: str) -> RawTensor:
        if shard not in self._open:
            path = self._folder / self._manifest.shards[shard].digest.hex()
            try:
                self._open[shard] = read_shard(path)
            except (OSError, *UNREADABLE) as error:
                named = self._manifest.shards[shard].name
                raise unusable(
                    self._folder, f"the shard {named} cannot be read: {error}", "fetch it again"
                ) from None
        found = self._open[shard].get(name)
        if found is None:
            raise unusable(self._folder, f"it lacks the tensor {name}")
        return found

    def decoded(self, shard: int, name: str, raw: RawTensor) -> torch.Tensor:
        # A copy: the file is mapped read-only, and its tensors are not aligned.
        return torch.from_numpy(np.array(raw.data)).view(DTYPES[raw.dtype]).view(raw.shape)
