"""The layers of BLOOM (https://arxiv.org/abs/2211.05100). Worker process only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from daemon.device.stages.architecture import Architecture
from daemon.device.stages.attention import alibi_slopes, attend
from daemon.device.stages.blocks.block import Weights, layer_norm, linear
from daemon.device.stages.cache import LayerCache


class BloomBlocks:
    """LayerNorms, and scores that fall with the distance. Satisfies `Blocks`."""

    def __init__(self, architecture: Architecture, device: torch.device) -> None:
        self._made = architecture
        self._slopes = alibi_slopes(architecture.heads, device)

    def embed(self, weights: Weights, tokens: Tensor, first: int) -> Tensor:
        x = F.embedding(tokens, weights["word_embeddings.weight"])
        return self._norm(weights, "word_embeddings_layernorm", x)

    def layer(self, weights: Weights, x: Tensor, cache: LayerCache, first: int) -> Tensor:
        time, heads = x.shape[0], self._made.heads
        normed = self._norm(weights, "input_layernorm", x)
        residual = normed if self._made.norm_first_residual else x
        qkv = linear(weights, "self_attention.query_key_value", normed)
        # shape of each: (heads, time, size)
        q, k, v = qkv.view(time, heads, 3, -1).permute(2, 1, 0, 3)
        keys, values = cache.extend(first, k, v)
        positions = torch.arange(keys.shape[1], device=x.device).float()
        bias = (self._slopes[:, None] * positions)[:, None, :]
        mixed = attend(q, keys, values, bias=bias)
        x = residual + linear(weights, "self_attention.dense", mixed)
        normed = self._norm(weights, "post_attention_layernorm", x)
        residual = normed if self._made.norm_first_residual else x
        widened = F.gelu(linear(weights, "mlp.dense_h_to_4h", normed), approximate="tanh")
        return residual + linear(weights, "mlp.dense_4h_to_h", widened)

    def logits(self, head: Weights, output: Tensor, x: Tensor) -> Tensor:
        return F.linear(self._norm(head, "ln_f", x), output)

    def _norm(self, weights: Weights, name: str, x: Tensor) -> Tensor:
        return layer_norm(weights, name, x, self._made.norm_epsilon)
