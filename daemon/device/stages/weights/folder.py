"""Reads a folder of `save_pretrained`, with safetensors. Worker process only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from daemon.device.stages.architecture import Architecture
from daemon.device.stages.weights.folder_config import read_architecture
from daemon.device.stages.weights.shards import DTYPES
from daemon.device.stages.weights.source import RawTensor, unusable

_FILES = "*.safetensors"


class SafetensorsFolder:
    """Satisfies `WeightSource`. The files are mapped, and only what `raw` asks for is read."""

    def __init__(self, folder: Path) -> None:
        """Read the configuration and the files' headers. Raises `UserError("MODEL")`."""
        self._folder = folder
        self.architecture = read_architecture(folder)
        self._name = _LAYERS[self.architecture.family]
        # The open file of each tensor.
        self._files: dict[str, Any] = {}
        for path in sorted(folder.glob(_FILES)):
            try:
                opened: Any = safe_open(path, framework="pt", device="cpu")
                self._files.update(dict.fromkeys(opened.keys(), opened))
            except (OSError, SafetensorError) as error:
                raise unusable(folder, f"{path.name} cannot be read: {error}") from None
        if not self._files:
            raise unusable(folder, f"it holds no file {_FILES}")

    def raw(self, shard: int, name: str) -> RawTensor:
        full = self._name(self.architecture, shard, name)
        # Some published files lack the first part of the names.
        found = full if full in self._files else full.partition(".")[2]
        if found not in self._files:
            raise unusable(self._folder, f"it lacks the tensor {full}")
        opened = self._files[found]
        dtype = str(opened.get_slice(found).get_dtype())
        if dtype not in DTYPES:
            raise unusable(
                self._folder,
                f"the tensor {found} holds {dtype}, and stages read {', '.join(DTYPES)}",
            )
        try:
            tensor: torch.Tensor = opened.get_tensor(found)
        except (OSError, SafetensorError) as error:
            raise unusable(self._folder, f"the tensor {found} cannot be read: {error}") from None
        data = tensor.contiguous().view(-1).view(torch.uint8).numpy()
        return RawTensor(dtype=dtype, shape=tuple(tensor.shape), data=data)

    def decoded(self, shard: int, name: str, raw: RawTensor) -> torch.Tensor:
        return torch.from_numpy(raw.data).view(DTYPES[raw.dtype]).view(raw.shape)


def _llama_name(architecture: Architecture, shard: int, name: str) -> str:
    if name == "lm_head.weight":
        return name
    inside = 0 < shard <= architecture.layers
    return f"model.layers.{shard - 1}.{name}" if inside else f"model.{name}"


def _bloom_name(architecture: Architecture, shard: int, name: str) -> str:
    if name == "lm_head.weight":
        return name
    inside = 0 < shard <= architecture.layers
    return f"transformer.h.{shard - 1}.{name}" if inside else f"transformer.{name}"


_LAYERS: dict[str, Callable[[Architecture, int, str], str]] = {
    "llama": _llama_name,
    "bloom": _bloom_name,
}
