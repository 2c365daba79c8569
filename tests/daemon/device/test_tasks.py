"""Tests of the shipped tasks, and of the errors for wrong names, options and files."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from daemon.device.model.flat_model import FlatModel
from daemon.device.optimizers.adamw import AdamW
from daemon.device.settings import WorkerSettings
from daemon.device.tasks.catalog import load_task, locate
from daemon.device.tasks.corpus import load_corpus, stdlib_sources
from daemon.device.tasks.digits import mnist, read_idx, sklearn_digits
from daemon.device.tasks.files import allowed_path
from protocol.errors import UserError
from protocol.run.initial_parameters import initial_parameters
from protocol.run.manifest import Inner
from protocol.run.manifest_file import load_manifest

SETTINGS = WorkerSettings(device="cpu", threads=1)


def losses(
    name: str, options: dict[str, int | float | str | bool], inner: Inner, steps: int
) -> list[float]:
    task = load_task(name, options, SETTINGS)
    flat = FlatModel(task, torch.device("cpu"))
    flat.flat.copy_(torch.from_numpy(initial_parameters(flat.specs, 1)))
    optimizer = AdamW(flat, inner)
    order = np.random.default_rng(1).integers(0, task.dataset_size(), (steps, inner.batch_size))
    out = []
    for indices in order:
        flat.zero_grad()
        loss = task.loss(flat.model, task.batch(indices))
        loss.backward()
        optimizer.step(float(flat.grad_norm()))
        out.append(loss.item())
    return out


def test_byte_gpt_learns() -> None:
    curve = losses(
        "byte_gpt",
        {"layers": 1, "heads": 2, "width": 32, "context": 32, "corpus_bytes": 200_000},
        Inner(learning_rate=3e-3),
        60,
    )
    # The first loss is that of a uniform guess.
    assert curve[0] == pytest.approx(math.log(256), abs=0.1)
    assert np.mean(curve[-10:]) < 3.7


def test_simple_cnn_learns() -> None:
    curve = losses("simple_cnn", {}, Inner(batch_size=32), 150)
    assert curve[0] == pytest.approx(math.log(10), abs=0.3)
    assert np.mean(curve[-10:]) < 0.5


@pytest.mark.parametrize("name", ["stdlib-gpt", "digits-cnn"])
def test_the_shipped_runs_have_shipped_tasks_and_valid_options(name: str) -> None:
    run = load_manifest(Path(__file__).parents[3] / "configs" / "runs" / f"{name}.toml")
    assert run.name == name
    assert load_task(run.task, run.task_options, SETTINGS).dataset_size() > 1000


def test_byte_gpt_attention_is_causal() -> None:
    task = load_task("byte_gpt", {"layers": 2, "heads": 2, "width": 16, "context": 16}, SETTINGS)
    model = task.model()
    text = torch.arange(16)[None]
    other = text.clone()
    other[0, 9:] = 200
    assert torch.allclose(model(text)[0, :9], model(other)[0, :9], atol=1e-5)
    assert not torch.allclose(model(text)[0, 9:], model(other)[0, 9:], atol=1e-5)


def test_two_instances_have_the_same_specs() -> None:
    specs = [
        FlatModel(load_task("byte_gpt", {}, SETTINGS), torch.device("cpu")).specs for _ in range(2)
    ]
    assert specs[0] == specs[1]
    kinds = {spec.name: spec.init for spec in specs[0]}
    assert kinds["blocks.0.attention_norm.weight"] == "ones"
    assert kinds["blocks.0.attention_norm.bias"] == "zeros"
    assert kinds["embedding.weight"] == "uniform"


def test_the_error_for_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'byte_gpt'"):
        locate("byte-gpt", SETTINGS)
    for name in ("os:../x", "a b:C", ":", "x:"):
        with pytest.raises(UserError, match="not a task's name"):
            locate(name, WorkerSettings(allow_custom_task=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": 0}, "layers"),
        ({"width": 100, "heads": 3}, "does not divide"),
        ({"width": "big"}, "width"),
        ({"contxt": 4}, "did you mean 'context'"),
    ],
)
def test_the_error_for_a_wrong_option_names_it(
    options: dict[str, int | float | str | bool], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        load_task("byte_gpt", options, SETTINGS)


def test_stdlib_sources_are_reproducible_and_limited() -> None:
    text = stdlib_sources(300_000)
    assert text.size == 300_000
    assert np.array_equal(text, stdlib_sources(300_000))
    assert b"import" in text.tobytes()


def test_a_corpus_is_read_only_inside_the_data_folders(tmp_path: Path) -> None:
    data, secret = tmp_path / "data", tmp_path / "secret"
    (data / "books").mkdir(parents=True)
    secret.mkdir()
    (data / "books" / "a.txt").write_bytes(b"alpha")
    (data / "books" / "b.txt").write_bytes(b"beta")
    (secret / "key").write_bytes(b"hidden")
    (data / "way_out").symlink_to(secret)
    (data / "books" / "link").symlink_to(secret / "key")
    allowed = [str(data)]
    assert load_corpus("books", allowed).tobytes() == b"alpha\nbeta\n"
    assert load_corpus(str(data / "books" / "a.txt"), allowed).tobytes() == b"alpha\n"
    assert load_corpus("books", allowed, limit=7).tobytes() == b"alpha\nb"
    for wanted in (str(secret), "../secret", "way_out", "way_out/key", "books/link", "nowhere"):
        with pytest.raises(UserError, match="DATA"):
            allowed_path(wanted, allowed)
    with pytest.raises(UserError, match="no folder is listed"):
        load_corpus("books", [])


def test_an_empty_or_tiny_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "tiny").write_bytes(b"x" * 20)
    settings = WorkerSettings(data_folders=(str(tmp_path),))
    with pytest.raises(UserError, match="empty"):
        load_task("byte_gpt", {"corpus": "empty"}, settings)
    with pytest.raises(UserError, match="21 bytes"):
        load_task("byte_gpt", {"corpus": "tiny", "context": 64}, settings)


def test_sklearn_digits_are_complete() -> None:
    images, labels = sklearn_digits()
    assert images.shape == (1797, 1, 8, 8)
    assert (images.min(), images.max()) == (0.0, 1.0)
    # The counts are those of scikit-learn's documentation.
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def idx(values: np.ndarray) -> bytes:
    return (
        bytes((0, 0, 8, values.ndim))
        + b"".join(size.to_bytes(4, "big") for size in values.shape)
        + values.astype(np.uint8).tobytes()
    )


def test_mnist_files_are_read(tmp_path: Path) -> None:
    pictures = np.arange(3 * 28 * 28).reshape(3, 28, 28) % 256
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pictures)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.array([7, 0, 9])))
    images, labels = mnist(tmp_path)
    assert images.shape == (3, 1, 28, 28)
    assert np.allclose(images[:, 0] * 255, pictures)
    assert labels.tolist() == [7, 0, 9]
    task = load_task(
        "simple_cnn", {"data": str(tmp_path)}, WorkerSettings(data_folders=(str(tmp_path),))
    )
    assert task.loss(task.model(), task.batch(np.array([0, 2]))).item() > 0
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.array([7, 0])))
    with pytest.raises(UserError, match="do not belong together"):
        mnist(tmp_path)


@pytest.mark.parametrize(
    "spoiled",
    [
        b"",
        b"\0\0\x0d\x01\0\0\0\x01\0",
        b"\0\0\x08\x01\0\0\0\x09abc",
        b"\0\0\x08\x09",
        b"\0\0\x08\x01\0",
    ],
)
def test_spoiled_idx_files_are_refused(tmp_path: Path, spoiled: bytes) -> None:
    (tmp_path / "file").write_bytes(spoiled)
    with pytest.raises(UserError, match="DATA"):
        read_idx(tmp_path / "file")
