"""Reads a model of one of our own runs, as `hypergpud export` writes it. Worker process only.

The file is safetensors with the task and its options in the metadata. The task "byte_gpt" has
stages. A run of "hf_causal_lm" is exported as a folder of transformers instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open

from daemon.device.stages.architecture import Architecture, Shapes
from daemon.device.stages.weights.source import RawTensor, shard_count, shard_shapes, unusable
from daemon.device.tasks.byte_gpt import SYMBOLS, ByteGptOptions

FORMAT = "hypergpu/model/1"
TASK = "byte_gpt"
# The one tensor of a file whose checkpoint did not know the names: all of them, in order.
FLAT = "parameters"
_DTYPE = "F32"


class RunFile:
    """Satisfies `WeightSource`."""

    def __init__(self, path: Path) -> None:
        """Read the file's header. Raises `UserError("MODEL")`."""
        self._path = path
        self._file: Any
        try:
            self._file = safe_open(path, framework="pt", device="cpu")
        except (OSError, SafetensorError) as error:
            raise unusable(path, f"it cannot be read: {error}") from None
        metadata = self._file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise unusable(
                path,
                "it is not an export of hypergpud",
                "name a folder of save_pretrained, a GGUF file, or a file of hypergpud export",
            )
        if metadata.get("task") != TASK:
            raise unusable(
                path,
                f"its task is {metadata.get('task')!r}, and stages know {TASK!r}",
                "hypergpud export --format hf FOLDER, then serve the folder",
            )
        try:
            options = msgspec.json.decode(metadata["task_options"], type=ByteGptOptions)
        except (KeyError, msgspec.DecodeError, ValueError) as error:
            raise unusable(path, f"its task's options cannot be read: {error}") from None
        self.architecture = byte_gpt_architecture(options)
        self._places = _places(self.architecture)
        self._flat: torch.Tensor | None = None
        if FLAT in self._file.keys():  # noqa: SIM118
            self._flat = self._file.get_tensor(FLAT)

    def raw(self, shard: int, name: str) -> RawTensor:
        start, stop, shape = self._places[shard, name]
        try:
            tensor = (
                self._flat[start:stop].view(shape)
                if self._flat is not None
                else self._file.get_tensor(_name(self.architecture, shard, name))
            )
        except (SafetensorError, RuntimeError) as error:
            raise unusable(self._path, f"its tensor {name} cannot be read: {error}") from None
        if tensor.dtype != torch.float32:
            raise unusable(self._path, f"its tensor {name} holds {tensor.dtype}, not float32")
        data = tensor.contiguous().view(-1).view(torch.uint8).numpy()
        return RawTensor(dtype=_DTYPE, shape=tuple(tensor.shape), data=data)

    def decoded(self, shard: int, name: str, raw: RawTensor) -> torch.Tensor:
        return torch.from_numpy(raw.data).view(torch.float32).view(raw.shape)


def byte_gpt_architecture(options: ByteGptOptions) -> Architecture:
    """Return the architecture of the task's model."""
    return Architecture(
        family="byte_gpt",
        layers=options.layers,
        width=options.width,
        heads=options.heads,
        kv_heads=options.heads,
        head_size=options.width // options.heads,
        inner=4 * options.width,
        vocabulary=SYMBOLS,
        context=options.context,
    )


def _name(architecture: Architecture, shard: int, name: str) -> str:
    inside = 0 < shard <= architecture.layers
    return f"blocks.{shard - 1}.{name}" if inside else name


def _places(architecture: Architecture) -> dict[tuple[int, str], tuple[int, int, tuple[int, ...]]]:
    """Return where each tensor lies in the run's vector, which has the order of the shards."""
    places: dict[tuple[int, str], tuple[int, int, tuple[int, ...]]] = {}
    at = 0
    for shard in range(shard_count(architecture)):
        shapes: Shapes = shard_shapes(architecture, shard)
        for name, shape in shapes.items():
            size = int(torch.Size(shape).numel())
            places[shard, name] = (at, at + size, shape)
            at += size
    return places
