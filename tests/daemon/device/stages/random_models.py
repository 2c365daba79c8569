"""Small models with seeded random weights, as `transformers` saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

tokenizers = pytest.importorskip("tokenizers", reason="needs the extra hf")
transformers = pytest.importorskip("transformers", reason="needs the extra hf")

VOCABULARY, CONTEXT = 97, 128
_LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def configurations() -> dict[str, Any]:
    """Return a configuration for each kind of layer, by name."""
    tied = transformers.LlamaConfig(**_LLAMA, tie_word_embeddings=True)
    return {
        "llama, tied": tied,
        "llama, biases": transformers.LlamaConfig(
            **_LLAMA, tie_word_embeddings=False, attention_bias=True, mlp_bias=True
        ),
        "llama 3.1": transformers.LlamaConfig(
            **_LLAMA, tie_word_embeddings=False, rope_parameters=_LLAMA3
        ),
        "qwen2": transformers.Qwen2Config(**_LLAMA, tie_word_embeddings=True),
        "qwen3": transformers.Qwen3Config(**_LLAMA, head_dim=16, tie_word_embeddings=False),
        "bloom": transformers.BloomConfig(
            vocab_size=VOCABULARY, hidden_size=48, n_layer=5, n_head=6, seq_length=CONTEXT
        ),
        "bloom, norm first": transformers.BloomConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            n_layer=5,
            n_head=4,
            seq_length=CONTEXT,
            apply_residual_connection_post_layernorm=True,
        ),
    }


TEXT = "the quick brown fox jumps over a lazy dog while rain falls on green hills"
WORDS = tuple(TEXT.split())


def small_tokenizer() -> Any:
    """Return a tokenizer with a token for each word, whose chats end with a bracket."""
    vocabulary = {word: number for number, word in enumerate(["<end>", "<unk>", *WORDS])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<end>", unk_token="<unk>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }} {{ eos_token }} {% endfor %}"
    )
    return tokenizer


NAMES = tuple(configurations())


def random_model(name: str, folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Save a model with random weights in a folder, and return it in float32 and eval mode.

    Biases and norms are random too: a model that begins with zeros and ones would hide a bias that
    is left out.
    """
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(
        configurations()[name], attn_implementation="eager"
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.copy_(torch.randn_like(parameter) * 0.15)
    model.to(dtype).save_pretrained(folder)
    small_tokenizer().save_pretrained(folder)
    # Loaded again: `to` also rounds the rotary frequencies, which a folder does not hold.
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
