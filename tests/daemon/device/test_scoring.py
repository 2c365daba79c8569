"""Tests of the held-out split, and of scoring parameters between two steps."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from daemon.device.loops.scorer import ScoringFault
from daemon.device.model.author_code import TaskFault
from daemon.device.settings import job_of
from daemon.device.tasks.catalog import load_task
from daemon.device.tasks.held_out import split_of
from hypergpu import Batch
from protocol.identity import Signer
from protocol.ports.trainer import HeldOutShare
from protocol.run.manifest import Inner, Manifest
from tests.daemon.device.faulty_tasks import Line, LineOptions
from tests.daemon.device.loops import LANE, SETTINGS, loop_of

ALL = HeldOutShare(index=0, count=1)
OPTIONS = LineOptions()


class Noted(Line):
    """Notes the samples that it gives."""

    def __init__(self) -> None:
        super().__init__(OPTIONS)
        self.given: set[int] = set()

    def batch(self, indices: np.ndarray) -> Batch:
        self.given |= set(indices.tolist())
        return super().batch(indices)


@pytest.mark.parametrize(("rules", "most"), [(2, 99), (3, 94)])
def test_training_draws_held_out_samples_only_in_rules_2(rules: int, most: int) -> None:
    task = Noted()
    holds_out = job_of(Manifest(name="a", task="b", rules=rules), Signer(bytes(32)).peer).holds_out
    loop, _ = loop_of(task, inner=Inner(batch_size=5), holds_out=holds_out)
    loop.train(LANE, 60)
    task.given.clear()
    while loop.training:
        loop.step()
    assert task.given == set(range(most + 1))


def test_only_the_description_in_rules_3_has_the_split() -> None:
    class More(Line):
        def held_out_size(self) -> int:
            return 7

    for holds_out in (False, True):
        usual, more = (
            loop_of(task, holds_out=holds_out)[0].describe()
            for task in (Line(OPTIONS), More(OPTIONS))
        )
        names = [part.name for part in usual.source]
        assert ("the held-out samples" in names) == holds_out
        assert (usual.source[-1] != more.source[-1]) == holds_out


def test_no_training_window_of_byte_gpt_overlaps_a_held_out_one() -> None:
    task = load_task("byte_gpt", {"context": 16, "width": 16, "corpus_bytes": 20_000}, SETTINGS)
    split = split_of(task, task.dataset_size(), holds_out=True)
    assert split.held_out == task.dataset_size() // 20
    context = 16
    last_trained_byte = (split.trained - 1) * context + context
    first_held_out_byte = (split.total - split.held_out) * context
    assert last_trained_byte < first_held_out_byte


def test_a_split_that_leaves_nothing_to_train_on_is_refused() -> None:
    class Greedy(Line):
        def held_out_size(self) -> int:
            return 100

    with pytest.raises(TaskFault, match=r"held_out_size.* holds 100 of 100 samples out"):
        loop_of(Greedy(OPTIONS), holds_out=True)


def test_simple_cnn_reports_its_accuracy() -> None:
    loop, shared = loop_of(load_task("simple_cnn", {}, SETTINGS), "simple_cnn", holds_out=True)
    shared.scored[:] = shared.anchor
    evaluation = loop.evaluate(ALL)
    assert evaluation.samples == 89
    assert [name for name, _ in evaluation.metrics] == ["accuracy"]
    assert 0.0 <= evaluation.metrics[0][1] <= 1.0


class Messy(Line):
    """Its evaluation draws random numbers, makes gradients and changes the mode."""

    def model(self) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout(0.5))

    def evaluate(self, model: torch.nn.Module) -> dict[str, float]:
        assert not model.training
        model.train()
        torch.rand(3)
        np.random.rand(3)
        random.random()
        with torch.enable_grad():
            self.loss(model, self.batch(self.held_out_indices)).backward()  # type: ignore[no-untyped-call]
        return super().evaluate(model)


def test_an_evaluation_leaves_all_of_training_as_it_was() -> None:
    results = []
    for scored in (False, True):
        loop, shared = loop_of(Messy(OPTIONS), holds_out=True)
        loop.train(LANE, None)
        numbers: list[float] = []
        for _ in range(6):
            loop.step()
            gradient, numbers_of = loop._net.grad.clone(), (np.random.rand, random.random)
            if scored:
                shared.scored[:] = 3.0
                loop.evaluate(ALL)
                assert torch.equal(loop._net.grad, gradient)
                assert loop._net.model.training
            numbers += [draw() for draw in numbers_of]
        results.append((loop._net.flat.numpy().tobytes(), numbers, torch.rand(1).item()))
        assert loop.pause().steps == 6
    assert results[0] == results[1]


class Failing(Line):
    """Its evaluation does what the test says."""

    def __init__(self, result: object) -> None:
        super().__init__(OPTIONS)
        self.result = result

    def evaluate(self, model: torch.nn.Module) -> dict[str, float]:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (KeyError("text"), r"test_scoring.py:\d+ evaluate\(\): KeyError: 'text'"),
        (MemoryError(), "ran out of memory"),
        (None, r"test_scoring.py:\d+ evaluate\(\) returned a NoneType, not a dict"),
        (0.5, r"evaluate\(\) returned a float"),
        ({"accuracy": 0.5}, "returned a dict with accuracy, not a dict with a"),
        ({"loss": "low"}, "returned 'loss' = a str, not a number"),
        ({"loss": float("nan")}, "returned a loss of nan"),
    ],
)
def test_an_evaluation_that_fails_names_its_place_and_training_goes_on(
    result: object, words: str
) -> None:
    loop, _ = loop_of(Failing(result), holds_out=True)
    loop.train(LANE, None)
    loop.step()
    with pytest.raises(ScoringFault, match=words):
        loop.evaluate(ALL)
    loop.step()
    assert loop.pause().steps == 2


def test_a_run_without_held_out_samples_is_not_scored() -> None:
    loop, _ = loop_of(Line(OPTIONS))
    with pytest.raises(ScoringFault, match="0 of 100 samples are held out"):
        loop.evaluate(ALL)


def test_group_losses_are_the_means_of_the_samples_at_each_position() -> None:
    loop, shared = loop_of(Line(OPTIONS), holds_out=True)
    shared.scored[:] = shared.anchor
    positions = np.arange(24).reshape(3, 8)
    measured = loop.group_losses(positions.tolist())
    assert len(measured.losses) == 3
    singles = loop.group_losses([[int(position)] for position in positions[1]]).losses
    assert measured.losses[1] == pytest.approx(sum(singles) / 8, rel=1e-5)
    shared.scored[:] = 0.0
    assert loop.group_losses(positions.tolist()).losses != measured.losses


def test_group_losses_leave_all_of_training_as_it_was() -> None:
    results = []
    for measured in (False, True):
        loop, shared = loop_of(Messy(OPTIONS), holds_out=True)
        loop.train(LANE, None)
        for _ in range(6):
            loop.step()
            gradient = loop._net.grad.clone()
            if measured:
                shared.scored[:] = 7.0
                loop.group_losses([[1, 2, 3], [4, 5, 6]])
            assert torch.equal(loop._net.grad, gradient)
        loop.pause()
        results.append(shared.delta.copy())
    assert np.array_equal(*results)


def test_group_losses_lower_where_the_model_was_trained() -> None:
    loop, shared = loop_of(Line(OPTIONS), holds_out=True)
    loop.train(LANE, 20)
    shared.scored[:] = shared.anchor
    before = loop.group_losses([list(range(40))]).losses[0]
    while loop.training:
        loop.step()
    loop.pause()
    shared.scored[:] = shared.anchor - shared.delta
    assert loop.group_losses([list(range(40))]).losses[0] < before
