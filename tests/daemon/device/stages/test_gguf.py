"""Tests GGUF files, which a test writes from a random Llama, and SmolLM2. Needs the extra "hf"."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from daemon.device.stages.stage_model import StageModel
from daemon.device.stages.weights.open_source import open_source
from daemon.models.known_models import GGUF_FILE, KNOWN, folder_of, models_directory
from protocol.errors import UserError
from protocol.inference.layers import LayerRange
from tests.daemon.device.stages.random_models import VOCABULARY, random_model

gguf = pytest.importorskip("gguf", reason="needs the extra hf")

CPU = torch.device("cpu")
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
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


def gguf_name(name: str) -> str:
    stem, _, end = name.rpartition(".")
    if stem in _NAMES:
        return f"{_NAMES[stem]}.{end}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{_NAMES[rest]}.{end}"


def permuted(weights: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp's converter does: rotary pairs lie side by side."""
    half = weights.shape[0] // heads // 2
    paired = weights.reshape(heads, 2, half, *weights.shape[1:])
    return paired.swapaxes(1, 2).reshape(weights.shape)


def write_gguf(
    model: Any,
    kind: str,
    file: Path,
    *,
    half: bool,
    change: Callable[[str, np.ndarray], np.ndarray] = lambda _name, values: values,
) -> None:
    """Write a model of transformers as llama.cpp's converter does; `change` alters its tensors."""
    config, writer = model.config, gguf.GGUFWriter(file, kind)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        if kind == "llama" and "q_proj" in name:
            values = permuted(values, config.num_attention_heads)
        elif kind == "llama" and "k_proj" in name:
            values = permuted(values, config.num_key_value_heads)
        # llama.cpp keeps vectors in float32.
        kept = values.astype(np.float16) if half and values.ndim == 2 else values
        kept = change(gguf_name(name), kept)
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(kept))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def logits(place: Path, first: int, stop: int, tokens: np.ndarray) -> np.ndarray:
    stage = StageModel(open_source(place), LayerRange(first=first, stop=stop), CPU)
    return stage.step(stage.new_cache(stage.layers, len(tokens)), tokens)


@pytest.mark.parametrize(
    ("name", "kind", "half"),
    [
        ("llama, tied", "llama", False),
        ("llama, biases", "llama", True),
        ("qwen2", "qwen2", False),
        ("qwen3", "qwen3", False),
    ],
)
def test_gguf_file_computes_the_logits_of_the_folder(
    name: str, kind: str, half: bool, tmp_path: Path
) -> None:
    model = random_model(name, tmp_path / "folder")
    write_gguf(model, kind, tmp_path / "model.gguf", half=half)
    tokens = np.arange(1, 20, dtype=np.int32) % VOCABULARY
    expected = logits(tmp_path / "folder", 0, 5, tokens)
    found = logits(tmp_path / "model.gguf", 0, 5, tokens)
    if half:
        assert np.abs(found - expected).max() <= 1e-2 * np.abs(expected).max()
    else:
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "tensor", ["token_embd.weight", "blk.0.attn_q.weight", "output_norm.weight"]
)
@pytest.mark.parametrize("cut", [lambda values: values.reshape(-1), lambda values: values[:-1]])
def test_gguf_file_with_a_tensor_of_another_shape_is_refused(
    tensor: str, cut: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    model = random_model("llama, biases", tmp_path / "folder")

    def change(name: str, values: np.ndarray) -> np.ndarray:
        return cut(values)[:-1] if name == tensor else values

    write_gguf(model, "llama", tmp_path / "model.gguf", half=False, change=change)
    with pytest.raises(UserError, match="cannot be served"):
        StageModel(open_source(tmp_path / "model.gguf"), LayerRange(first=0, stop=5), CPU)


@pytest.mark.slow
def test_smollm2_has_the_logits_of_transformers() -> None:
    known = KNOWN["smollm2"]
    folder = folder_of(known, models_directory())
    if not (folder / GGUF_FILE).is_file():
        pytest.skip("SmolLM2 is not on this machine: hypergpud model fetch smollm2")
    torch.set_num_threads(1)
    from daemon.device.pretrained.causal_models import load_model, load_tokenizer  # noqa: PLC0415

    text = (
        "The first rule of a distributed system is that a part of it may fail at any time. "
        "A pipeline of stages computes one token after another, and each stage keeps the keys"
        " and values of all tokens before. When a stage dies, another one gets its inputs again."
    )
    tokens = np.array(load_tokenizer(folder).encode(text * 4), np.int32)
    with torch.no_grad():
        expected = load_model(folder)(torch.from_numpy(tokens).long()[None]).logits[0].numpy()
    stages = [
        StageModel(open_source(folder / GGUF_FILE), LayerRange(first=first, stop=stop), CPU)
        for first, stop in ((0, 10), (10, 20), (20, 30))
    ]
    caches = [stage.new_cache(stage.layers, len(tokens)) for stage in stages]
    found = []
    for token in tokens:
        chunk = np.array([token], np.int32)
        for stage, cache in zip(stages, caches, strict=True):
            chunk = stage.step(cache, chunk)
        found.append(chunk[0])
    logits = np.stack(found)
    assert len(tokens) >= 200
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()
    assert (logits.argmax(-1) == expected.argmax(-1)).mean() >= 0.999
