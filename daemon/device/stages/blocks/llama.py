"""The layers of Llama, Qwen2, Qwen3 and SmolLM. Worker process only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from daemon.device.stages.architecture import Architecture
from daemon.device.stages.attention import attend, rope_frequencies, rotate, rotation
from daemon.device.stages.blocks.block import Weights, linear, split_heads
from daemon.device.stages.cache import LayerCache


class LlamaBlocks:
    """RMSNorm before attention and before a gated perceptron. Satisfies `Blocks`."""

    def __init__(self, architecture: Architecture, device: torch.device) -> None:
        self._made = architecture
        self._frequencies = rope_frequencies(architecture.rope, architecture.head_size, device)

    def embed(self, weights: Weights, tokens: Tensor, first: int) -> Tensor:
        return F.embedding(tokens, weights["embed_tokens.weight"])

    def layer(self, weights: Weights, x: Tensor, cache: LayerCache, first: int) -> Tensor:
        made = self._made
        normed = self._norm(x, weights["input_layernorm.weight"])
        q = split_heads(linear(weights, "self_attn.q_proj", normed), made.heads)
        k = split_heads(linear(weights, "self_attn.k_proj", normed), made.kv_heads)
        v = split_heads(linear(weights, "self_attn.v_proj", normed), made.kv_heads)
        if made.head_norm:
            q = self._norm(q, weights["self_attn.q_norm.weight"])
            k = self._norm(k, weights["self_attn.k_norm.weight"])
        turned = rotation(self._frequencies, first, x.shape[0])
        keys, values = cache.extend(first, rotate(k, turned), v)
        mixed = attend(rotate(q, turned), keys, values)
        x = x + linear(weights, "self_attn.o_proj", mixed)
        normed = self._norm(x, weights["post_attention_layernorm.weight"])
        gated = F.silu(linear(weights, "mlp.gate_proj", normed))
        return x + linear(weights, "mlp.down_proj", gated * linear(weights, "mlp.up_proj", normed))

    def logits(self, head: Weights, output: Tensor, x: Tensor) -> Tensor:
        return F.linear(self._norm(x, head["norm.weight"]), output)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """Apply an RMSNorm (https://arxiv.org/abs/1910.07467) over the last dimension."""
        mean_square = x.pow(2).mean(-1, keepdim=True)
        return weight * (x * torch.rsqrt(mean_square + self._made.norm_epsilon))
