"""Compares the layers of each family with `transformers`. Needs the extra "hf"."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from daemon.device.stages.cache import GenerationCache
from daemon.device.stages.stage_model import StageModel
from daemon.device.stages.weights.open_source import open_source
from protocol.inference.layers import LayerRange
from tests.daemon.device.stages.random_models import NAMES, VOCABULARY, random_model

CPU = torch.device("cpu")
# INFERENCE's bound for logits.
RELATIVE = 1e-4
LENGTH, PROMPT = 60, 23


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def text_tokens() -> np.ndarray:
    return np.random.default_rng(3).integers(0, VOCABULARY, LENGTH).astype(np.int32)


def stages_of(folder: Path, *boundaries: int) -> list[StageModel]:
    """Stages between the boundaries, each loaded from the folder by itself."""
    ranges = [LayerRange(first=first, stop=stop) for first, stop in pairwise(boundaries)]
    return [StageModel(open_source(folder), layers, CPU) for layers in ranges]


def caches_of(stages: list[StageModel], limit: int = LENGTH) -> list[GenerationCache]:
    return [stage.new_cache(stage.layers, limit) for stage in stages]


def logits_of(
    stages: list[StageModel], caches: list[GenerationCache], chunk: np.ndarray
) -> np.ndarray:
    """The logits of a chunk's last token. shape (vocabulary,)"""
    for stage, cache in zip(stages, caches, strict=True):
        chunk = stage.step(cache, chunk)
    return chunk[0]


def all_logits(stages: list[StageModel], tokens: np.ndarray, prompt: int) -> np.ndarray:
    """The logits behind a prompt, then behind each further token."""
    caches = caches_of(stages)
    found = [logits_of(stages, caches, tokens[:prompt])]
    found += [logits_of(stages, caches, tokens[at : at + 1]) for at in range(prompt, len(tokens))]
    return np.stack(found)


@pytest.mark.parametrize("name", NAMES)
def test_stages_compute_the_logits_of_transformers(name: str, tmp_path: Path) -> None:
    model, tokens = random_model(name, tmp_path), text_tokens()
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens).long()[None]).logits[0, PROMPT - 1 :].numpy()
    found = all_logits(stages_of(tmp_path, 0, 2, 3, 5), tokens, PROMPT)
    assert np.abs(found - expected).max() <= RELATIVE * np.abs(expected).max()
    assert (found.argmax(-1) == expected.argmax(-1)).all()


@pytest.mark.parametrize("name", ["llama, tied", "qwen3", "bloom"])
def test_three_stages_compute_the_bits_of_one(name: str, tmp_path: Path) -> None:
    random_model(name, tmp_path)
    tokens = text_tokens()
    alone = all_logits(stages_of(tmp_path, 0, 5), tokens, PROMPT)
    assert all_logits(stages_of(tmp_path, 0, 1, 4, 5), tokens, PROMPT).tobytes() == alone.tobytes()


@pytest.mark.parametrize("name", ["llama, tied", "qwen3", "bloom"])
def test_replay_in_the_same_chunks_has_the_same_bits(name: str, tmp_path: Path) -> None:
    random_model(name, tmp_path)
    tokens, stages = text_tokens(), stages_of(tmp_path, 0, 2, 5)
    first = all_logits(stages, tokens, PROMPT)
    # The second stage is lost at token 40, and its replacement gets the same chunks again.
    shapes = [PROMPT, *([1] * (LENGTH - PROMPT))]
    front, cache = stages[0], stages[0].new_cache(stages[0].layers, LENGTH)
    at, hidden = 0, []
    for shape in shapes:
        hidden.append(front.step(cache, tokens[at : at + shape]))
        at += shape
    (replacement,) = stages_of(tmp_path, 2, 5)
    replayed = replacement.new_cache(replacement.layers, LENGTH)
    found = np.stack([replacement.step(replayed, chunk)[0] for chunk in hidden])
    assert found.tobytes() == first.tobytes()


def test_replay_in_one_chunk_is_close(tmp_path: Path) -> None:
    random_model("llama, tied", tmp_path)
    tokens, stages = text_tokens(), stages_of(tmp_path, 0, 5)
    stepwise = all_logits(stages, tokens, PROMPT)[-1]
    at_once = logits_of(stages, caches_of(stages), tokens)
    assert np.abs(at_once - stepwise).max() <= RELATIVE * np.abs(stepwise).max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    model, tokens = random_model("qwen2", tmp_path, dtype), text_tokens()
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens).long()[None]).logits[0, PROMPT - 1 :].numpy()
    found = all_logits(stages_of(tmp_path, 0, 5), tokens, PROMPT)
    assert np.abs(found - expected).max() <= RELATIVE * np.abs(expected).max()


def test_cache_that_grows_keeps_its_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random_model("llama, tied", tmp_path)
    tokens, stages = text_tokens(), stages_of(tmp_path, 0, 5)
    large = all_logits(stages, tokens, PROMPT)
    monkeypatch.setattr("daemon.device.stages.cache.BLOCK_TOKENS", 8)
    small = all_logits(stages, tokens, PROMPT)
    assert np.abs(small - large).max() <= RELATIVE * np.abs(large).max()
