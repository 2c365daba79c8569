"""Tests of the task hf_causal_lm on a tiny Llama with random weights. Needs the extra "hf"."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from daemon.device.loops.exported_form import as_exported
from daemon.device.model.flat_model import FlatModel
from daemon.device.settings import WorkerSettings
from daemon.device.tasks.catalog import load_task
from daemon.device.tasks.task import Task
from protocol.errors import UserError
from protocol.ports.trainer import Lane
from protocol.run.initial_parameters import initial_parameters
from tests.daemon.device.loops import loop_of

transformers = pytest.importorskip("transformers", reason="needs the extra hf")
peft = pytest.importorskip("peft", reason="needs the extra hf")
tokenizers = pytest.importorskip("tokenizers", reason="needs the extra hf")

LANE = Lane(base=0, index=0, stride=1)
TEXT = "the quick brown fox jumps over a lazy dog while rain falls on green hills"
WORDS = TEXT.split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a tiny model, its tokenizer, and texts."""
    data = tmp_path_factory.mktemp("data")
    vocabulary = {word: number for number, word in enumerate(["<end>", "<unk>", *WORDS])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<end>", unk_token="<unk>"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(data / "tiny")
    tokenizer.save_pretrained(data / "tiny")
    rng = np.random.default_rng(1)
    lines = [" ".join(rng.choice(WORDS, 30)) for _ in range(40)]
    (data / "texts.jsonl").write_text(
        "\n".join(
            json.dumps({"text": line} if number % 2 else {"messages": [{"content": line}]})
            for number, line in enumerate(lines)
        )
    )
    return data


def task_of(folder: Path, **options: int | float | str | bool) -> Task:
    settings = WorkerSettings(device="cpu", threads=1, data_folders=(str(folder),))
    given = {"model": "tiny", "text": "texts.jsonl", "context": 8, "rank": 2, **options}
    return load_task("hf_causal_lm", given, settings)


def test_only_the_adapter_is_the_vector_and_the_base_is_in_the_digest(folder: Path) -> None:
    loop, _ = loop_of(task_of(folder), "hf_causal_lm")
    assert {spec.name.split(".")[-3] for spec in loop.specs} == {"lora_A", "lora_B"}
    assert {spec.init for spec in loop.specs} == {"uniform", "zeros"}
    digest = loop.describe()
    names = {part.name.replace("base_model.model.", "") for part in digest.frozen}
    assert "model.embed_tokens.weight" in names
    assert all(part.content is not None for part in digest.frozen)


def test_another_base_model_is_another_task(folder: Path, tmp_path: Path) -> None:
    usual = loop_of(task_of(folder), "hf_causal_lm")[0].describe()
    other = tmp_path / "tiny"
    model = transformers.LlamaForCausalLM.from_pretrained(folder / "tiny")
    model.model.norm.weight.data[0] += 0.5
    model.save_pretrained(other)
    transformers.AutoTokenizer.from_pretrained(folder / "tiny").save_pretrained(other)
    (tmp_path / "texts.jsonl").write_text((folder / "texts.jsonl").read_text())
    changed = loop_of(task_of(tmp_path), "hf_causal_lm")[0].describe()
    assert usual.name != changed.name
    assert [a.name for a, b in zip(usual.frozen, changed.frozen, strict=True) if a != b] == [
        "base_model.model.model.norm.weight"
    ]


def test_an_adapter_begins_as_the_base_model_and_learns(folder: Path) -> None:
    task = task_of(folder)
    loop, shared = loop_of(task, "hf_causal_lm")
    indices = np.arange(4)
    plain = transformers.LlamaForCausalLM.from_pretrained(folder / "tiny")
    net = loop._net
    (window,) = task.batch(indices)
    with net.computing_with(torch.from_numpy(shared.anchor.copy())), torch.no_grad():
        ours = net.model(input_ids=window).logits
    assert torch.equal(ours, plain(input_ids=window).logits)
    loop.train(LANE, 30)
    losses = []
    while loop.training:
        loop.step()
        losses.append(loop.progress().loss)
    assert losses[-1] < losses[0]


def test_a_whole_model_begins_with_its_own_weights(folder: Path) -> None:
    task = task_of(folder, train="full")
    loop, shared = loop_of(task, "hf_causal_lm")
    # The worker puts the values that the task gives into the shared anchor.
    given = loop._net.flat.numpy().copy()
    assert {spec.init for spec in loop.specs} == {"given"}
    loop.share(shared)
    assert np.array_equal(shared.anchor, given)
    anchor = initial_parameters(loop.specs, 3, given)
    assert np.array_equal(anchor, given)
    assert given.any()
    contents = [part.content for part in loop.describe().parameters]
    assert all(content is not None and not content.sketch for content in contents)


def test_given_values_are_needed() -> None:
    class Given(Task):
        def model(self) -> torch.nn.Module:
            return torch.nn.Linear(2, 2)

        def init(self, name: str, shape: tuple[int, ...]) -> object:  # type: ignore[override]
            from hypergpu import GIVEN  # noqa: PLC0415

            return GIVEN

        def dataset_size(self) -> int:
            return 1

        def batch(self, indices: np.ndarray) -> tuple[torch.Tensor, ...]:
            return ()

        def loss(self, model: torch.nn.Module, batch: object) -> torch.Tensor:
            raise NotImplementedError

    net = FlatModel(Given(None), torch.device("cpu"))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="given"):
        initial_parameters(net.specs, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"targets": "nothing"}, "its linear layers are down_proj, gate_proj, k_proj"),
        ({"context": 65}, "at most 64 tokens"),
        ({"model": "smallm2"}, "not in the folders"),
        ({"text": "tiny/config.jsn"}, "not in the folders"),
        ({"rank": 0}, "rank"),
    ],
)
def test_a_wrong_option_is_explained(
    folder: Path, options: dict[str, int | str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        task_of(folder, **options).model()


def test_a_bad_line_names_file_and_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"tekst": 1}\n')
    settings = WorkerSettings(data_folders=(str(folder), str(tmp_path)))
    with pytest.raises(UserError, match=r"Line 2 of .*bad\.jsonl"):
        load_task("hf_causal_lm", {"model": "tiny", "text": "bad.jsonl"}, settings)


@pytest.mark.parametrize("adapter", [False, True])
def test_the_export_loads_in_transformers_with_equal_logits(
    folder: Path, tmp_path: Path, adapter: bool
) -> None:
    from daemon.device.messages import ExportModel  # noqa: PLC0415

    task = task_of(folder)
    loop, shared = loop_of(task, "hf_causal_lm")
    loop.train(LANE, 10)
    while loop.training:
        loop.step()
    loop.pause()
    shared.scored[:] = shared.anchor - shared.delta
    (window,) = task.batch(np.arange(4))
    net = loop._net
    before = [tensor.clone() for tensor in net.model.state_dict().values()]
    # The adapter's export computes as training does, the whole model's as evaluation does.
    form = nullcontext() if adapter else as_exported(task, net.model)
    with net.computing_with(torch.from_numpy(shared.scored.copy())), form, torch.no_grad():
        wanted = net.model(input_ids=window).logits
    loop._guard.check_hand_over()
    after = list(net.model.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    loop.export(ExportModel(id=0, folder=str(tmp_path), form="hf", adapter=adapter))
    if adapter:
        base = transformers.AutoModelForCausalLM.from_pretrained(folder / "tiny")
        model = peft.PeftModel.from_pretrained(base, tmp_path)
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        found = model(input_ids=window).logits
    assert torch.equal(found, wanted)
    start = transformers.AutoModelForCausalLM.from_pretrained(folder / "tiny")
    assert not torch.allclose(start(input_ids=window).logits, wanted, atol=1e-3)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("the fox")["input_ids"] == task.encode("the fox")  # type: ignore[attr-defined]


def test_a_whole_models_export_keeps_ties(folder: Path, tmp_path: Path) -> None:
    from daemon.device.messages import ExportModel  # noqa: PLC0415

    task = task_of(folder, train="full")
    loop, shared = loop_of(task, "hf_causal_lm")
    shared.scored[:] = loop._net.flat.numpy() * 1.5
    loop.export(ExportModel(id=0, folder=str(tmp_path), form="hf", adapter=False))
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    start = transformers.AutoModelForCausalLM.from_pretrained(folder / "tiny")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, start.state_dict()[name] * 1.5), name
    assert model.lm_head.weight is model.model.embed_tokens.weight
