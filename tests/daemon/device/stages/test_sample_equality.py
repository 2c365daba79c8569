"""Compares the text of stages with that of `hypergpud sample`, for the same weights and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from daemon.device.loops.results import ModelResults
from daemon.device.messages import SampleModel
from daemon.device.model.flat_model import FlatModel
from daemon.device.processor import Device
from daemon.device.settings import WorkerSettings
from daemon.device.stages.stage_model import StageModel
from daemon.device.stages.weights.open_source import open_source
from daemon.device.tasks.byte_gpt import ByteGpt
from daemon.device.tasks.held_out import DataSplit
from daemon.models.text_tokens import ByteTokenizer
from protocol.generation.sampler import SamplingRules, choose_token
from protocol.generation.text_pieces import TextPieces
from protocol.inference.layers import LayerRange
from tests.daemon.device.stages.run_models import OPTIONS, write_byte_gpt

TOKENS = 60
PROMPT = "class Stage:"


def sampled(model: torch.nn.Module, rules: SamplingRules) -> str:
    """The text of `hypergpud sample`, by the code of the worker."""
    task = ByteGpt(OPTIONS)
    device = Device(WorkerSettings(device="cpu", threads=1))
    net = FlatModel(task, device.torch)
    flat = torch.cat([part.detach().reshape(-1) for part in model.parameters()])
    split: Any = DataSplit
    results = ModelResults(task, device, net, split, seed=1)
    wanted = SampleModel(id=1, prompt=PROMPT, count=1, tokens=TOKENS, rules=rules)
    return results.sample(flat, wanted)[0]


def staged(file: Path, rules: SamplingRules) -> str:
    """The text of three stages."""
    stages = [
        StageModel(open_source(file), LayerRange(first=at, stop=at + 1), torch.device("cpu"))
        for at in range(3)
    ]
    caches = [stage.new_cache(stage.layers, OPTIONS.context) for stage in stages]
    tokenizer = ByteTokenizer()
    pieces, text = TextPieces(tokenizer.decode), PROMPT
    chunk = np.array(tokenizer.encode(PROMPT), np.int32)
    for place in range(TOKENS):
        for stage, cache in zip(stages, caches, strict=True):
            chunk = stage.step(cache, chunk)
        token = choose_token(chunk[0], rules, place)
        text += pieces.add(token)
        chunk = np.array([token], np.int32)
    return text + pieces.rest()


@pytest.mark.parametrize("seed", range(4))
def test_stages_write_the_text_of_sample(seed: int, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    model = write_byte_gpt(file)
    rules = SamplingRules(seed=seed, temperature=0.0 if seed == 3 else 0.8)
    assert staged(file, rules) == sampled(model, rules)
