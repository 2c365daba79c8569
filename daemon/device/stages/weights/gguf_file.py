"""Reads a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

The only module that imports gguf, which is part of the extra "hf". Worker process only. The
quantized blocks are hashed as the file holds them, and become float32 when a stage loads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize

from daemon.device.stages.architecture import Architecture
from daemon.device.stages.weights.source import RawTensor, unusable

_KNOWN = ("llama", "qwen2", "qwen3")
# The names of a layer's tensors. Weights and biases have the same stems.
_STEMS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTER = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_ROPE_FACTORS = "rope_freqs.weight"


class GgufFile:
    """Satisfies `WeightSource`. The file is mapped, and only what `raw` asks for is read."""

    def __init__(self, path: Path) -> None:
        """Read the file's header. Raises `UserError("MODEL")`."""
        self._path = path
        try:
            self._reader = GGUFReader(path)
        except (OSError, ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
            raise unusable(path, f"it is not a whole GGUF file: {error}") from None
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self._kind = str(self._value("general.architecture", ""))
        self.architecture = self._architecture()

    def raw(self, shard: int, name: str) -> RawTensor:
        found = self._tensors.get(self._name(shard, name))
        if found is None:
            raise unusable(self._path, f"it lacks the tensor {self._name(shard, name)}")
        return RawTensor(
            dtype=found.tensor_type.name,
            # GGUF names the innermost dimension first.
            shape=tuple(int(size) for size in reversed(found.shape)),
            data=np.ascontiguousarray(found.data).view(np.uint8).reshape(-1),
        )

    def decoded(self, shard: int, name: str, raw: RawTensor) -> torch.Tensor:
        kind = GGMLQuantizationType[raw.dtype]
        made, turned = self.architecture, ("self_attn.q_proj", "self_attn.k_proj")
        try:
            values = _dequantized(raw.data, kind, raw.shape)
            if self._kind == "llama" and name.startswith(turned):
                values = _unpermuted(values, made.heads if ".q_" in name else made.kv_heads)
        except (NotImplementedError, ValueError) as error:
            raise unusable(
                self._path, f"the tensor {name} of kind {raw.dtype} cannot be read: {error}"
            ) from None
        # A copy: the file is mapped read-only.
        return torch.from_numpy(np.array(values))

    def _architecture(self) -> Architecture:
        kind = self._kind
        if kind not in _KNOWN:
            raise unusable(
                self._path, f"its architecture is {kind!r}, and stages know {', '.join(_KNOWN)}"
            )
        scaling = self._value(f"{kind}.rope.scaling.type", "none")
        if _ROPE_FACTORS in self._tensors or scaling != "none":
            raise unusable(
                self._path,
                "its rotary positions are stretched, which stages read from safetensors only",
                "serve the folder of the same model with safetensors",
            )
        try:
            width = int(self._value(f"{kind}.embedding_length"))
            heads = int(self._value(f"{kind}.attention.head_count"))
            return msgspec.convert(
                {
                    "family": "llama",
                    "layers": int(self._value(f"{kind}.block_count")),
                    "width": width,
                    "heads": heads,
                    "kv_heads": int(self._value(f"{kind}.attention.head_count_kv", heads)),
                    "head_size": int(self._value(f"{kind}.attention.key_length", width // heads)),
                    "inner": int(self._value(f"{kind}.feed_forward_length")),
                    "vocabulary": int(self._tensors["token_embd.weight"].shape[1]),
                    "context": int(self._value(f"{kind}.context_length")),
                    "norm_epsilon": float(self._value(f"{kind}.attention.layer_norm_rms_epsilon")),
                    "tied": "output.weight" not in self._tensors,
                    "rope": {"theta": float(self._value(f"{kind}.rope.freq_base", 10_000.0))},
                    "qkv_bias": "blk.0.attn_q.bias" in self._tensors,
                    "out_bias": "blk.0.attn_output.bias" in self._tensors,
                    "perceptron_bias": "blk.0.ffn_up.bias" in self._tensors,
                    "head_norm": "blk.0.attn_q_norm.weight" in self._tensors,
                },
                Architecture,
            )
        except KeyError as missing:
            raise unusable(self._path, f"its header lacks {missing}") from None
        except (TypeError, ValueError, ArithmeticError, IndexError) as error:
            raise unusable(self._path, f"its header is wrong: {error}") from None

    def _value(self, key: str, default: Any = None) -> Any:
        """Return a value of the header. Raises `KeyError` without it and without a default."""
        field = self._reader.fields.get(key)
        if field is None:
            if default is None:
                raise KeyError(key)
            return default
        return field.contents()

    def _name(self, shard: int, name: str) -> str:
        if name in _OUTER:
            return _OUTER[name]
        stem, _, end = name.rpartition(".")
        return f"blk.{shard - 1}.{_STEMS[stem]}.{end}"


def _dequantized(data: Any, kind: GGMLQuantizationType, shape: tuple[int, ...]) -> Any:
    """Return float32 values of a shape from blocks, which lie along the last dimension."""
    if kind == GGMLQuantizationType.F32:
        return data.view(np.float32).reshape(shape)
    if kind == GGMLQuantizationType.F16:
        return data.view(np.float16).reshape(shape).astype(np.float32)
    rows = int(np.prod(shape[:-1], dtype=np.int64))
    return dequantize(data.reshape(rows, -1), kind).reshape(shape)


def _unpermuted(values: Any, heads: int) -> Any:
    """Undo GGUF's order of rotary pairs: (0, 1), (2, 3) there, (i, i + size / 2) here."""
    half = values.shape[0] // heads // 2
    paired = values.reshape(heads, half, 2, *values.shape[1:])
    return paired.swapaxes(1, 2).reshape(values.shape)
