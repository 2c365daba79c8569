"""Defines `WeightSource`: the tensors of one model, by shard and name. Worker process only."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
import torch

from daemon.device.stages.architecture import Architecture, Shapes
from protocol.errors import UserError
from protocol.inference.layers import LayerRange


class RawTensor(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor as its file holds it.

    `data` is a uint8 array of shape (bytes,), and `dtype` says how to read it.
    """

    dtype: str
    shape: tuple[int, ...]
    data: Any


class WeightSource(Protocol):
    """A model on this machine. Nothing is read before `raw` asks for it."""

    @property
    def architecture(self) -> Architecture: ...

    def raw(self, shard: int, name: str) -> RawTensor:
        """Return a tensor of a shard, by its name in `architecture.py`.

        Raises `UserError("MODEL")` where the file lacks it, or holds a kind that is not supported.
        """

    def decoded(self, shard: int, name: str, raw: RawTensor) -> torch.Tensor:
        """Return the values of a raw tensor as float32, in the shape of the file."""


def shard_count(architecture: Architecture) -> int:
    """Return the number of shards: the embedding, the layers, the head."""
    return architecture.layers + 2


def shard_shapes(architecture: Architecture, shard: int) -> Shapes:
    """Return the tensors of a shard with their shapes."""
    if shard == 0:
        return architecture.embedding()
    return architecture.layer() if shard <= architecture.layers else architecture.head()


def shard_name(architecture: Architecture, shard: int) -> str:
    """Return the name of a shard in the model's manifest."""
    if shard == 0:
        return "embedding"
    return f"layer {shard - 1}" if shard <= architecture.layers else "head"


def shards_of(architecture: Architecture, layers: LayerRange) -> tuple[int, ...]:
    """Return the shards that a range of layers needs.

    The first stage needs the embedding, the last one the head. The last stage of a model with a
    tied output needs the embedding too.
    """
    shards = list(range(layers.first + 1, layers.stop + 1))
    is_last = layers.stop == architecture.layers
    if layers.first == 0 or (is_last and architecture.tied):
        shards.insert(0, 0)
    if is_last:
        shards.append(architecture.layers + 1)
    return tuple(shards)


def unusable(place: object, why: str, fix: str = "") -> UserError:
    """Return the error for a model that no stage can load."""
    return UserError("MODEL", f"The model {place} cannot be served.", why=why, fix=fix, exit_code=2)
