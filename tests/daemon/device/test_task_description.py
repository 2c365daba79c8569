"""Tests of the description by which nodes compare their tasks."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
import torch

from daemon.device.tasks.catalog import load_task
from daemon.device.tasks.source import source_digest, sources_of
from daemon.device.tasks.task import Batch, Task
from protocol.run.task_digest import TaskDigest, difference
from tests.daemon.device import unusual_models
from tests.daemon.device.faulty_tasks import Line, LineOptions
from tests.daemon.device.loops import SETTINGS, loop_of

OPTIONS = LineOptions()


def described(task: Task, name: str = "test:Task") -> TaskDigest:
    return loop_of(task, name)[0].describe()


def test_equal_tasks_have_equal_descriptions() -> None:
    first, second = (
        described(unusual_models.Frozen(OPTIONS)),
        described(unusual_models.Frozen(OPTIONS)),
    )
    assert first.name == second.name
    assert difference(first, second) == ""


def test_a_random_buffer_is_the_same_on_every_node() -> None:
    torch.manual_seed(1)
    first = described(unusual_models.Fourier(OPTIONS))
    torch.manual_seed(2)
    assert described(unusual_models.Fourier(OPTIONS)).name == first.name
    assert first.buffers[0].name == "projection"


class OtherTable(Line):
    def model(self) -> torch.nn.Module:
        made = unusual_models.WithTable()
        made.table.data[0, 0] = 0.25
        return made


class Swapped(Line):
    def model(self) -> torch.nn.Module:
        return torch.nn.ModuleDict({"b": torch.nn.Linear(1, 1), "a": torch.nn.Linear(1, 1)})


class Straight(Line):
    def model(self) -> torch.nn.Module:
        return torch.nn.ModuleDict({"a": torch.nn.Linear(1, 1), "b": torch.nn.Linear(1, 1)})


class Wide(Line):
    def model(self) -> torch.nn.Module:
        return torch.nn.Linear(1, 7)


class Unknown(Line):
    """Its buffer comes from a generator that the run does not seed."""

    drawn = np.random.default_rng()

    def model(self) -> torch.nn.Module:
        made = torch.nn.Linear(1, 1)
        made.register_buffer("noise", torch.from_numpy(self.drawn.random(5)))
        return made


class OtherLabels(Line):
    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        x, y = super().batch(indices)
        return x, y + 1


class Augmented(Line):
    """Each call returns another crop of the same samples."""

    drawn = np.random.default_rng()

    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        x, y = super().batch(indices)
        return x + float(self.drawn.random()), y


class Private(Augmented):
    data = "private"

    def dataset_size(self) -> int:
        return 7


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (unusual_models.Frozen, OtherTable, "other values in frozen parameter 1 `table`"),
        (Swapped, Straight, "parameter 1 `a.weight`, ours `b.weight`"),
        (Line, Wide, "parameter 1 `weight` of shape (7, 1), ours (1, 1)"),
        (Line, unusual_models.Tied, "parameter 1 `0.weight`, ours `weight`"),
        (Unknown, Unknown, "other values in buffer 1 `noise`"),
        (Line, OtherLabels, "tensor 2 of the same samples differs"),
        (Line, Private, 'only the other node\'s task says data = "private"'),
    ],
)
def test_difference_names_the_first_difference(
    ours: type[Line], theirs: type[Line], words: str
) -> None:
    mine, other = described(ours(OPTIONS)), described(theirs(OPTIONS))
    assert mine.name != other.name
    assert words in difference(mine, other)


def test_difference_names_options_and_sizes() -> None:
    assert "slope = 3.0" in difference(
        described(Line(OPTIONS)), described(Line(LineOptions(slope=3.0)))
    )
    small = Line(OPTIONS)
    small.dataset_size = lambda: 50  # type: ignore[method-assign]
    assert "has 50 samples, ours 100" in difference(described(Line(OPTIONS)), described(small))


def test_samples_that_change_between_calls_are_not_compared() -> None:
    assert difference(described(Augmented(OPTIONS)), described(Augmented(OPTIONS))) == ""
    assert described(Augmented(OPTIONS)).sample == ()


def test_private_data_is_not_compared() -> None:
    task = described(Private(OPTIONS))
    assert (task.private, task.sample) == (True, ())


def test_a_shipped_task_is_described_by_its_version() -> None:
    options = {"layers": 1, "heads": 2, "width": 16, "context": 16, "corpus_bytes": 50_000}
    task = described(load_task("byte_gpt", options, SETTINGS), "byte_gpt")
    assert [part.name for part in task.source] == ["task byte_gpt"]
    assert task.private


def test_source_digest_ignores_comments_docstrings_and_layout(tmp_path: Path) -> None:
    plain, commented, other = (tmp_path / f"{name}.py" for name in ("plain", "commented", "other"))
    plain.write_text("def loss(x):\n    return x * 2\n")
    commented.write_text(
        '"""About."""\n# why\ndef loss( x ):\n    """What."""\n\n    return (x * 2)  # twice\n'
    )
    other.write_text("def loss(x):\n    return x * 3\n")
    assert source_digest(plain) == source_digest(commented) != source_digest(other)


def test_sources_of_includes_the_modules_beside_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "winery"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "task.py").write_text("from . import labels\nimport vintage\n")
    (package / "labels.py").write_text("LABELS = 1\n")
    (tmp_path / "vintage.py").write_text("YEAR = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("winery.task")
    names = ("winery", "winery.task", "winery.labels", "vintage")
    try:
        before = sources_of("winery.task")
        assert {part.name for part in before} == {f"module {name}" for name in names}
        (package / "labels.py").write_text("LABELS = 2\n")
        assert sources_of("winery.task") != before
    finally:
        for name in names:
            del sys.modules[name]


def test_the_description_names_the_version_of_the_standard_library_but_no_private_data() -> None:
    small = {"context": 16, "width": 16}
    whole, cut, private = (
        loop_of(load_task("byte_gpt", {**small, **more}, SETTINGS), "byte_gpt")[0].describe()
        for more in ({"corpus_bytes": 20_000}, {"corpus_bytes": 19_999}, {"private": True})
    )
    assert len(whole.sample) == 1
    assert whole.sample != cut.sample
    assert difference(whole, msgspec.structs.replace(whole, sample=cut.sample)) == ""
    assert private.sample == ()
