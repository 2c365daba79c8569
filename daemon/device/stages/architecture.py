"""Defines `Architecture`: the figures of a model that decide how its layers compute.

A model has `layers + 2` shards, the units that a stage loads and checks: the embedding, each layer,
and the head. The tensors of a shard have their names in `safetensors` files of `transformers`,
without the prefixes that differ between files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Family = Literal["byte_gpt", "llama", "bloom"]
Shapes = Mapping[str, tuple[int, ...]]

# A stranger's model file cannot ask for more. The largest published models have 128 layers, 18,432
# elements in a hidden state, and 262,144 tokens.
MOST_LAYERS, MOST_WIDTH, MOST_VOCABULARY = 1024, 1 << 16, 1 << 20
_Width = Annotated[int, Meta(ge=1, le=MOST_WIDTH)]


class Rope(msgspec.Struct, frozen=True, kw_only=True):
    """Rotary positions (https://arxiv.org/abs/2104.09864), and how they are stretched.

    A `factor` above 1 divides all frequencies ("linear"), or the low ones ("llama3").
    """

    theta: Annotated[float, Meta(gt=0)] = 10_000.0
    kind: Literal["default", "linear", "llama3"] = "default"
    factor: Annotated[float, Meta(ge=1)] = 1.0
    low_frequency: Annotated[float, Meta(gt=0)] = 1.0
    high_frequency: Annotated[float, Meta(gt=0)] = 4.0
    trained_context: Annotated[int, Meta(ge=1)] = 8192


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a model.

    `inner` is the width of the perceptron, `context` the most tokens of a text. `tied` says that
    the embedding is the output too. The four flags are the differences between the models of the
    family "llama" (Llama, Qwen2, Qwen3, SmolLM), and `norm_first_residual` is BLOOM's.
    """

    family: Family
    layers: Annotated[int, Meta(ge=1, le=MOST_LAYERS)]
    width: _Width
    heads: _Width
    kv_heads: _Width
    head_size: _Width
    inner: Annotated[int, Meta(ge=1, le=8 * MOST_WIDTH)]
    vocabulary: Annotated[int, Meta(ge=1, le=MOST_VOCABULARY)]
    context: Annotated[int, Meta(ge=1, le=1 << 24)]
    norm_epsilon: Annotated[float, Meta(gt=0, le=1)] = 1e-5
    tied: bool = True
    rope: Rope = Rope()
    qkv_bias: bool = False
    out_bias: bool = False
    perceptron_bias: bool = False
    head_norm: bool = False
    norm_first_residual: bool = False

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(
                f"{self.heads} heads do not divide into {self.kv_heads} key-value heads"
            )
        if self.family == "llama" and self.head_size % 2:
            raise ValueError(f"rotary positions need an even head size, not {self.head_size}")

    @property
    def cache_floats(self) -> int:
        """The key and value of one token in one layer, in float32 elements."""
        return 2 * self.kv_heads * self.head_size

    def embedding(self) -> Shapes:
        """Return the tensors of the shard "embedding"."""
        words = (self.vocabulary, self.width)
        match self.family:
            case "byte_gpt":
                return {"embedding.weight": words, "position.weight": (self.context, self.width)}
            case "llama":
                return {"embed_tokens.weight": words}
            case "bloom":
                return {
                    "word_embeddings.weight": words,
                    **_norm("word_embeddings_layernorm", self.width),
                }

    def head(self) -> Shapes:
        """Return the tensors of the shard "head". Those of a tied output are in "embedding"."""
        output = {} if self.tied else {"lm_head.weight": (self.vocabulary, self.width)}
        match self.family:
            case "byte_gpt":
                return {**_norm("norm", self.width), **output}
            case "llama":
                return {"norm.weight": (self.width,), **output}
            case "bloom":
                return {**_norm("ln_f", self.width), **output}

    def layer(self) -> Shapes:
        """Return the tensors of each layer."""
        width, inner = self.width, self.inner
        match self.family:
            case "byte_gpt":
                return {
                    **_norm("attention_norm", width),
                    **_linear("qkv", 3 * width, width, bias=False),
                    **_linear("attention_out", width, width, bias=False),
                    **_norm("perceptron_norm", width),
                    **_linear("up", inner, width, bias=False),
                    **_linear("down", width, inner, bias=False),
                }
            case "llama":
                return self._llama_layer()
            case "bloom":
                return {
                    **_norm("input_layernorm", width),
                    **_linear("self_attention.query_key_value", 3 * width, width, bias=True),
                    **_linear("self_attention.dense", width, width, bias=True),
                    **_norm("post_attention_layernorm", width),
                    **_linear("mlp.dense_h_to_4h", inner, width, bias=True),
                    **_linear("mlp.dense_4h_to_h", width, inner, bias=True),
                }

    def _llama_layer(self) -> Shapes:
        width, inner = self.width, self.inner
        q, kv = self.heads * self.head_size, self.kv_heads * self.head_size
        norms = {f"self_attn.{name}.weight": (self.head_size,) for name in ("q_norm", "k_norm")}
        return {
            "input_layernorm.weight": (width,),
            **_linear("self_attn.q_proj", q, width, bias=self.qkv_bias),
            **_linear("self_attn.k_proj", kv, width, bias=self.qkv_bias),
            **_linear("self_attn.v_proj", kv, width, bias=self.qkv_bias),
            **_linear("self_attn.o_proj", width, q, bias=self.out_bias),
            **(norms if self.head_norm else {}),
            "post_attention_layernorm.weight": (width,),
            **_linear("mlp.gate_proj", inner, width, bias=self.perceptron_bias),
            **_linear("mlp.up_proj", inner, width, bias=self.perceptron_bias),
            **_linear("mlp.down_proj", width, inner, bias=self.perceptron_bias),
        }


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, outputs: int, inputs: int, *, bias: bool) -> Shapes:
    weight: dict[str, tuple[int, ...]] = {f"{name}.weight": (outputs, inputs)}
    return {**weight, f"{name}.bias": (outputs,)} if bias else weight
