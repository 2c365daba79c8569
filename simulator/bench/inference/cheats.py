"""Stages that compute less than they promise, over the real weights of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from daemon.device.stages.architecture import Architecture
from daemon.device.stages.weights.source import RawTensor, WeightSource
from protocol.ports.stage import Activations

# A tensor of torch, which only the worker's modules import.
Tensor = Any
Change = Callable[[int, Tensor], Tensor]
"""Returns the weights with which a cheat computes, by shard and true weights."""

STALE_EVERY = 16
"""A stale stage repeats its last result at every 16th token: twice in a span of 32."""


class AlteredSource:
    """A model whose weights are changed as they load. Satisfies `WeightSource`."""

    def __init__(self, source: WeightSource, change: Change) -> None:
        self._source, self._change = source, change

    @property
    def architecture(self) -> Architecture:
        return self._source.architecture

    def raw(self, shard: int, name: str) -> RawTensor:
        return self._source.raw(shard, name)

    def decoded(self, shard: int, name: str, raw: RawTensor) -> Tensor:
        return self._change(shard, self._source.decoded(shard, name, raw).float())


def coarse(bits: int) -> Change:
    """Round each row of a matrix to signed integers of so many bits, times a scale."""

    def change(_shard: int, tensor: Tensor) -> Tensor:
        if tensor.dim() < 2:
            return tensor
        steps = 2 ** (bits - 1) - 1
        scale = tensor.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / steps
        return (tensor / scale).round() * scale

    return change


def half(_shard: int, tensor: Tensor) -> Tensor:
    """Round to bfloat16."""
    return tensor.bfloat16().float()


def skipped(layer: int) -> Change:
    """Let a layer pass its input on: without weights, only the residual path is left."""

    def change(shard: int, tensor: Tensor) -> Tensor:
        return tensor * 0 if shard == layer + 1 else tensor

    return change


def honest(_shard: int, tensor: Tensor) -> Tensor:
    """Return the true weights."""
    return tensor


def stale(token: int, result: Activations, before: Activations | None) -> Activations:
    """Return the last result again for some tokens, as a stage that drops every 16th step."""
    repeats = before is not None and token % STALE_EVERY == STALE_EVERY - 1
    return before if repeats and before is not None and before.shape == result.shape else result


def fresh(_token: int, result: Activations, _before: Activations | None) -> Activations:
    """Return the result as it was computed."""
    return result


class Cheat:
    """The weights of a stage, and what it makes of its results."""

    def __init__(self, change: Change = honest, answer: Callable[..., Activations] = fresh) -> None:
        self.change, self.answer = change, answer


def cheats(layers: int) -> Mapping[str, Cheat]:
    """Return the cheats by name, for a stage of the first `layers` layers."""
    return {
        "bfloat16": Cheat(half),
        "int8": Cheat(coarse(8)),
        "int4": Cheat(coarse(4)),
        "skipped-layer": Cheat(skipped(layers - 1)),
        "stale": Cheat(answer=stale),
    }
