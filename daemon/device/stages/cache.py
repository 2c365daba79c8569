"""Keeps the keys and values of one generation in the layers of a stage. Worker process only."""

from __future__ import annotations

import torch
from torch import Tensor

from daemon.device.stages.architecture import Architecture
from protocol.inference.layers import LayerRange

# A cache grows by this many tokens. Its size is a function of the position alone, so a replay has
# the same strides, and with them the same kernels.
BLOCK_TOKENS = 256


class LayerCache:
    """The keys and values of one layer. shape of each: (kv_heads, capacity, head_size)"""

    def __init__(self, architecture: Architecture, device: torch.device) -> None:
        self._heads, self._size = architecture.kv_heads, architecture.head_size
        self._device = device
        self._keys, self._values = self._room(0), self._room(0)

    def extend(self, first: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store the tokens from position `first` on, and return all up to them.

        `k` and `v` have shape (kv_heads, time, head_size).
        """
        total = first + k.shape[1]
        capacity = -(-total // BLOCK_TOKENS) * BLOCK_TOKENS
        if capacity > self._keys.shape[1]:
            keys, values = self._room(capacity), self._room(capacity)
            keys[:, :first], values[:, :first] = self._keys[:, :first], self._values[:, :first]
            self._keys, self._values = keys, values
        self._keys[:, first:total], self._values[:, first:total] = k, v
        return self._keys[:, :total], self._values[:, :total]

    def _room(self, capacity: int) -> Tensor:
        return torch.empty((self._heads, capacity, self._size), device=self._device)


class GenerationCache:
    """The keys and values of one generation. It holds `tokens`, and may hold `limit`."""

    def __init__(
        self, architecture: Architecture, layers: LayerRange, limit: int, device: torch.device
    ) -> None:
        self.range, self.limit, self.tokens = layers, limit, 0
        self.layers = [LayerCache(architecture, device) for _ in range(len(layers))]
