"""Tests where a stage's tensors come from, and that a stage loads only what was named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from daemon.device.stages.stage_model import StageModel
from daemon.device.stages.weights.open_source import open_source
from daemon.device.stages.weights.shards import describe_shards
from daemon.device.stages.weights.source import RawTensor, WeightSource
from daemon.device.tasks.byte_gpt import Gpt
from protocol.errors import UserError
from protocol.inference.layers import LayerRange
from tests.daemon.device.stages.run_models import OPTIONS, write_byte_gpt

CPU = torch.device("cpu")
RELATIVE = 1e-4


class CountingSource:
    """A source that notes the shards that are read."""

    def __init__(self, inner: WeightSource) -> None:
        self._inner, self.architecture = inner, inner.architecture
        self.read: set[int] = set()

    def raw(self, shard: int, name: str) -> RawTensor:
        self.read.add(shard)
        return self._inner.raw(shard, name)

    def decoded(self, shard: int, name: str, raw: RawTensor) -> torch.Tensor:
        return self._inner.decoded(shard, name, raw)


def layers(first: int, stop: int) -> LayerRange:
    return LayerRange(first=first, stop=stop)


def last_logits(file: Path, tokens: np.ndarray) -> np.ndarray:
    stage = StageModel(open_source(file), layers(0, OPTIONS.layers), CPU)
    return stage.step(stage.new_cache(stage.layers, len(tokens)), tokens)[0]


def expected_logits(model: Gpt, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(tokens).long()[None])[0, -1].numpy()


@pytest.mark.parametrize("flat", [False, True])
def test_run_file_computes_the_logits_of_the_task(flat: bool, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    model = write_byte_gpt(file, flat=flat)
    tokens = np.frombuffer(b"def pipeline(stages):\n    return", np.uint8).astype(np.int32)
    expected, found = expected_logits(model, tokens), last_logits(file, tokens)
    assert np.abs(found - expected).max() <= RELATIVE * np.abs(expected).max()
    assert found.argmax() == expected.argmax()


@pytest.mark.parametrize(
    ("first", "stop", "shards"),
    [(0, 1, {0, 1}), (1, 2, {2}), (1, 3, {0, 2, 3, 4}), (0, 3, {0, 1, 2, 3, 4})],
)
def test_stage_reads_the_shards_of_its_layers_alone(
    first: int, stop: int, shards: set[int], tmp_path: Path
) -> None:
    file = tmp_path / "model.safetensors"
    write_byte_gpt(file)
    source = CountingSource(open_source(file))
    StageModel(source, layers(first, stop), CPU)
    # The output is tied, so the last stage needs the embedding.
    assert source.read == shards


def test_stage_refuses_a_shard_with_another_digest(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_byte_gpt(file)
    digests = {shard.name: shard.digest for shard in describe_shards(open_source(file))}
    assert len(digests) == OPTIONS.layers + 2
    StageModel(open_source(file), layers(0, 3), CPU, digests)
    content = bytearray(file.read_bytes())
    # One bit of the last layer: the tensors lie in the order of the layers.
    content[-5000] ^= 1
    file.write_bytes(content)
    StageModel(open_source(file), layers(0, 1), CPU, digests)
    with pytest.raises(UserError, match="not the one of the model") as caught:
        StageModel(open_source(file), layers(1, 3), CPU, digests)
    assert caught.value.code == "DIGEST"


def test_stage_refuses_layers_that_the_model_does_not_have(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_byte_gpt(file)
    with pytest.raises(UserError, match="no layers 1:4"):
        StageModel(open_source(file), layers(1, 4), CPU)


def test_digest_of_a_model_does_not_depend_on_how_its_file_is_arranged(tmp_path: Path) -> None:
    write_byte_gpt(tmp_path / "named.safetensors")
    write_byte_gpt(tmp_path / "flat.safetensors", flat=True)
    named, flat = (
        describe_shards(open_source(tmp_path / name))
        for name in ("named.safetensors", "flat.safetensors")
    )
    assert named == flat


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"\xff" * 4096, b"GGUF\3\0\0\0garbage"])
@pytest.mark.parametrize("name", ["model.safetensors", "model.gguf"])
def test_source_refuses_garbage(content: bytes, name: str, tmp_path: Path) -> None:
    if name.endswith("gguf"):
        pytest.importorskip("gguf", reason="needs the extra hf")
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(UserError, match="cannot be served"):
        open_source(file)


def test_source_refuses_a_file_that_ends_early(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_byte_gpt(file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read"):
        open_source(file)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int8])
def test_run_file_of_other_numbers_is_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_byte_gpt(file)
    with safe_open(file, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name).to(dtype) for name in opened.keys()}  # noqa: SIM118
        save_file(tensors, file, opened.metadata())
    with pytest.raises(UserError, match="not float32"):
        StageModel(open_source(file), layers(0, 1), CPU)


@pytest.mark.parametrize("names", [{"a": 1}, 7, "", [], None, [[]]])
def test_configuration_with_no_list_of_architectures_is_refused(
    names: object, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "architectures": names}))
    with pytest.raises(UserError, match="its architecture is"):
        open_source(tmp_path)


def test_source_refuses_what_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        open_source(tmp_path / "absent")


LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "vocab_size": 97,
}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM"),
        ({"architectures": []}, "none"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"num_key_value_heads": 4}, "do not divide"),
        ({"num_hidden_layers": 10**9}, "1024"),
        ({"num_attention_heads": 0}, "config.json"),
        ({"hidden_size": "48"}, "config.json"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "yarn"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"rope_parameters": [1]}, "config.json"),
    ],
)
def test_configuration_that_stages_do_not_know_is_refused(
    changed: dict[str, object], why: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, **changed}))
    with pytest.raises(UserError, match=why.replace(".", r"\.")) as caught:
        open_source(tmp_path)
    assert caught.value.code == "MODEL"


def test_folder_that_lacks_a_tensor_names_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    write_byte_gpt(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.embed_tokens\.weight"):
        StageModel(open_source(tmp_path), layers(0, 1), CPU)
