"""The layers of the task "byte_gpt" (`daemon/device/tasks/byte_gpt.py`). Worker process only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from daemon.device.stages.architecture import Architecture
from daemon.device.stages.attention import attend
from daemon.device.stages.blocks.block import Weights, layer_norm, linear
from daemon.device.stages.cache import LayerCache


class ByteGptBlocks:
    """LayerNorms and learned positions. Satisfies `Blocks`."""

    def __init__(self, architecture: Architecture, device: torch.device) -> None:
        self._made = architecture

    def embed(self, weights: Weights, tokens: Tensor, first: int) -> Tensor:
        places = weights["position.weight"][first : first + tokens.shape[0]]
        return F.embedding(tokens, weights["embedding.weight"]) + places

    def layer(self, weights: Weights, x: Tensor, cache: LayerCache, first: int) -> Tensor:
        normed = self._norm(weights, "attention_norm", x)
        qkv = linear(weights, "qkv", normed).view(x.shape[0], 3, self._made.heads, -1)
        # shape of each: (heads, time, size)
        q, k, v = qkv.permute(1, 2, 0, 3)
        keys, values = cache.extend(first, k, v)
        x = x + linear(weights, "attention_out", attend(q, keys, values))
        widened = linear(weights, "up", self._norm(weights, "perceptron_norm", x))
        return x + linear(weights, "down", F.gelu(widened, approximate="tanh"))

    def logits(self, head: Weights, output: Tensor, x: Tensor) -> Tensor:
        return F.linear(self._norm(head, "norm", x), output)

    def _norm(self, weights: Weights, name: str, x: Tensor) -> Tensor:
        return layer_norm(weights, name, x, self._made.norm_epsilon)
