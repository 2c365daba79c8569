"""Loads and saves causal language models. The only module that imports transformers. Worker only.

A model is a local folder: one of `save_pretrained`, with safetensors, or one with a GGUF file. The
quantized tensors of a GGUF file become float32. Nothing is downloaded, and no code of the folder
runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as library_log

from daemon.models.known_models import CONFIG_FILE
from protocol.errors import UserError

# What the library raises for folders that do not hold what it expects.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError)
# The texts that are encoded at a time.
_TEXTS_AT_ONCE = 1024


class Tokenizer:
    """Maps text to token ids and back."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @property
    def end(self) -> int:
        """The token that ends a text."""
        found: int | None = self._tokenizer.eos_token_id
        if found is None:
            raise UserError(
                "MODEL",
                "The model's tokenizer has no token that ends a text.",
                fix="set eos_token in the folder's tokenizer_config.json",
                exit_code=2,
            )
        return found

    def encode(self, text: str) -> list[int]:
        """Return the text's token ids, without special tokens."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text."""
        found: list[list[int]] = []
        for at in range(0, len(texts), _TEXTS_AT_ONCE):
            part = list(texts[at : at + _TEXTS_AT_ONCE])
            found += self._tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]
        return found

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, without special tokens."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text

    def conversation(self, messages: Sequence[dict[str, str]], *, answer: bool = False) -> str:
        """Return messages as the text that the model's chat template makes of them.

        With `answer`, the text ends where the assistant's next message begins.
        """
        text: str = self._tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=answer
        )
        return text

    def file(self) -> bytes:
        """Return the content of a `tokenizer.json`. Raises `UserError("MODEL")`."""
        inner = getattr(self._tokenizer, "backend_tokenizer", None)
        if inner is None:
            raise UserError(
                "MODEL",
                "The model's tokenizer has no file tokenizer.json.",
                why="it is of a kind that only Python code of transformers reads",
                fix="convert it with transformers to a fast tokenizer",
                exit_code=2,
            )
        content: str = inner.to_str()
        return content.encode()

    @property
    def template(self) -> str:
        """The chat template with the special tokens that it names; empty without one."""
        template = self._tokenizer.chat_template
        if not isinstance(template, str):
            return ""
        named = {
            name: str(token)
            for name, token in self._tokenizer.special_tokens_map.items()
            if isinstance(token, str)
        }
        # JSON's strings are strings of Jinja too.
        given = "".join(
            f"{{%- set {name} = {json.dumps(token)} -%}}" for name, token in sorted(named.items())
        )
        return given + template

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files."""
        self._tokenizer.save_pretrained(folder)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer of a model's folder. Raises `UserError("MODEL")`."""
    library_log.disable_progress_bar()
    place, options = _source(folder)
    try:
        return Tokenizer(AutoTokenizer.from_pretrained(place, **options))
    except _UNREADABLE as error:
        raise _unreadable(folder, "tokenizer", error) from error


def load_model(folder: Path) -> nn.Module:
    """Load a model in float32, on the CPU. Raises `UserError("MODEL")`."""
    library_log.disable_progress_bar()
    library_log.set_verbosity_error()
    place, options = _source(folder)
    if "gguf_file" not in options:
        # Other files of weights are pickles, which can run code.
        options["use_safetensors"] = True
    try:
        model: nn.Module = AutoModelForCausalLM.from_pretrained(
            place, dtype=torch.float32, **options
        )
    except _UNREADABLE as error:
        raise _unreadable(folder, "model", error) from error
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        # Its tensors are plain float32 now. Otherwise the library refuses to save the model.
        quantizer.remove_quantization_config(model)
    return model


def save_model(model: nn.Module, folder: Path) -> None:
    """Write a model's configuration and tensors, as `from_pretrained` reads them."""
    model.save_pretrained(folder)  # type: ignore[operator]


def context_limit(model: nn.Module) -> int:
    """Return the most tokens that the model takes at once."""
    limit: int = getattr(model.config, "max_position_embeddings", 1 << 20)
    return limit


def _source(place: Path) -> tuple[Path, dict[str, Any]]:
    """Return the folder and the arguments that every loading has.

    `place` is a folder of `save_pretrained`, a folder with a GGUF file, or a GGUF file.
    """
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if (place / CONFIG_FILE).is_file():
        return place, options
    files = [place] if place.is_file() else sorted(place.glob("*.gguf"))
    if len(files) != 1:
        raise UserError(
            "MODEL",
            f"{place} holds no model.",
            why=f"it has no {CONFIG_FILE}, and {len(files)} GGUF files",
            fix="name a folder of save_pretrained, or one with a single GGUF file",
            exit_code=2,
        )
    return files[0].parent, {**options, "gguf_file": files[0].name}


def _unreadable(folder: Path, what: str, error: BaseException) -> UserError:
    words = str(error).strip().splitlines() or [type(error).__name__]
    return UserError(
        "MODEL",
        f"The {what} in {folder} cannot be loaded.",
        why=words[0],
        fix="check that the folder is complete, and that transformers knows its architecture",
        exit_code=2,
    )
