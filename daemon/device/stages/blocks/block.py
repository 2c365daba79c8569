"""Defines `Blocks`, what a family of models provides. Worker process only.

Tensors are dictionaries by the names in `architecture.py`. Hidden states have shape (time, width):
generations are not computed in batches, because a batch changes the last bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from daemon.device.stages.cache import LayerCache

Weights = Mapping[str, Tensor]


class Blocks(Protocol):
    """The arithmetic of one family of models."""

    def embed(self, weights: Weights, tokens: Tensor, first: int) -> Tensor:
        """Return hidden states for token ids, int64 of shape (time,), from position `first`."""

    def layer(self, weights: Weights, x: Tensor, cache: LayerCache, first: int) -> Tensor:
        """Return the layer's output for hidden states from position `first`."""

    def logits(self, head: Weights, output: Tensor, x: Tensor) -> Tensor:
        """Return logits of shape (time, vocabulary). `output` has shape (vocabulary, width)."""


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    """Apply a linear map, with its bias where it has one."""
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def layer_norm(weights: Weights, name: str, x: Tensor, epsilon: float) -> Tensor:
    """Apply a LayerNorm."""
    return F.layer_norm(
        x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], epsilon
    )


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Turn shape (time, heads * size) into (heads, time, size)."""
    return x.view(x.shape[0], heads, -1).transpose(0, 1)
