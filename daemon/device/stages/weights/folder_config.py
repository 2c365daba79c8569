"""Reads the configuration of a `transformers` folder as an `Architecture`. Worker process only.

The file comes from a stranger. A field that changes the arithmetic in a way that `blocks/` does not
know is refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from daemon.device.stages.architecture import Architecture
from daemon.device.stages.weights.source import unusable
from daemon.models.known_models import CONFIG_FILE

# A configuration has some kilobytes.
MAX_CONFIG_BYTES = 1 << 20


def read_architecture(folder: Path) -> Architecture:
    """Return the architecture of the model in a folder. Raises `UserError("MODEL")`."""
    try:
        with (folder / CONFIG_FILE).open("rb") as stream:
            given = msgspec.json.decode(stream.read(MAX_CONFIG_BYTES), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise unusable(folder, f"{CONFIG_FILE} cannot be read: {error}") from None
    names = given.get("architectures")
    kind = str(names[0]) if isinstance(names, list) and names else "(none)"
    if kind not in _READERS:
        raise unusable(
            folder,
            f"its architecture is {kind}, and stages know {', '.join(_READERS)}",
            "serve a model of one of these architectures",
        )
    try:
        fields = _READERS[kind](given)
        return msgspec.convert(fields, Architecture)
    except KeyError as missing:
        raise unusable(folder, f"{CONFIG_FILE} lacks {missing}") from None
    except (TypeError, ValueError, ArithmeticError) as error:
        raise unusable(folder, f"{CONFIG_FILE}: {error}") from None


def _llama(given: dict[str, Any]) -> dict[str, Any]:
    _require(given, "hidden_act", "silu")
    bias = bool(given.get("attention_bias", False))
    return {
        **_gated(given),
        "qkv_bias": bias,
        "out_bias": bias,
        "perceptron_bias": bool(given.get("mlp_bias", False)),
    }


def _qwen2(given: dict[str, Any]) -> dict[str, Any]:
    _require(given, "hidden_act", "silu")
    _require(given, "use_sliding_window", False)
    return {**_gated(given), "qkv_bias": True}


def _qwen3(given: dict[str, Any]) -> dict[str, Any]:
    _require(given, "hidden_act", "silu")
    _require(given, "use_sliding_window", False)
    bias = bool(given.get("attention_bias", False))
    return {**_gated(given), "qkv_bias": bias, "out_bias": bias, "head_norm": True}


def _gated(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that all models of the family "llama" have."""
    heads = given["num_attention_heads"]
    return {
        "family": "llama",
        "layers": given["num_hidden_layers"],
        "width": given["hidden_size"],
        "heads": heads,
        "kv_heads": given.get("num_key_value_heads") or heads,
        "head_size": given.get("head_dim") or given["hidden_size"] // heads,
        "inner": given["intermediate_size"],
        "vocabulary": given["vocab_size"],
        "context": given["max_position_embeddings"],
        "norm_epsilon": given.get("rms_norm_eps", 1e-6),
        "tied": bool(given.get("tie_word_embeddings", False)),
        "rope": _rope(given),
    }


def _rope(given: dict[str, Any]) -> dict[str, Any]:
    # transformers 5 writes "rope_parameters", earlier versions the other two fields.
    scaling = given.get("rope_parameters") or given.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise TypeError("rope_parameters is not a table")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    theta = scaling.get("rope_theta", given.get("rope_theta", 10_000.0))
    if kind == "default":
        return {"theta": theta}
    if kind == "linear":
        return {"theta": theta, "kind": kind, "factor": scaling["factor"]}
    if kind == "llama3":
        return {
            "theta": theta,
            "kind": kind,
            "factor": scaling["factor"],
            "low_frequency": scaling["low_freq_factor"],
            "high_frequency": scaling["high_freq_factor"],
            "trained_context": scaling["original_max_position_embeddings"],
        }
    raise ValueError(f"its rotary positions are of the kind {kind!r}, which stages do not know")


def _bloom(given: dict[str, Any]) -> dict[str, Any]:
    width, heads = given["hidden_size"], given["n_head"]
    return {
        "family": "bloom",
        "layers": given["n_layer"],
        "width": width,
        "heads": heads,
        "kv_heads": heads,
        "head_size": width // heads,
        "inner": 4 * width,
        "vocabulary": given["vocab_size"],
        # ALiBi has no limit of its own; BLOOM was trained on 2,048 tokens.
        "context": given.get("seq_length", 2048),
        "norm_epsilon": given.get("layer_norm_epsilon", 1e-5),
        "tied": bool(given.get("tie_word_embeddings", True)),
        "norm_first_residual": bool(given.get("apply_residual_connection_post_layernorm", False)),
    }


def _require(given: dict[str, Any], field: str, wanted: object) -> None:
    found = given.get(field, wanted)
    if found != wanted:
        raise ValueError(f"{field} is {found!r}, and stages know {wanted!r} only")


_READERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "LlamaForCausalLM": _llama,
    "Qwen2ForCausalLM": _qwen2,
    "Qwen3ForCausalLM": _qwen3,
    "BloomForCausalLM": _bloom,
}
