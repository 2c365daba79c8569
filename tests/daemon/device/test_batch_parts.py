"""Tests of steps that are computed in parts: gradients, memory, and scaled losses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from daemon.device.loops.batch_gradient import BatchGradient
from daemon.device.loops.batch_parts import GROW_AFTER, BatchParts
from daemon.device.loops.loss_scale import GROWTH_INTERVAL, LossScale
from daemon.device.loops.training import TrainingLoop
from daemon.device.model.author_code import MemoryShort, TaskFault
from daemon.device.model.flat_model import FlatModel
from daemon.device.model.guard import ModelGuard
from daemon.device.processor import Device
from daemon.device.tasks.task import Batch, Task, TaskOptions
from protocol.run.manifest import Inner
from tests.daemon.device.loops import LANE, SETTINGS, loop_of


class Words(Task):
    """Samples of 1 to 5 labels each; a batch of more than `room` samples does not fit."""

    room = 1 << 30
    counts = True

    def __init__(self) -> None:
        super().__init__(TaskOptions())
        # How many samples each call of loss() got.
        self.calls: list[int] = []
        self.drawn: list[int] = []

    def model(self) -> nn.Module:
        return nn.Linear(3, 4)

    def dataset_size(self) -> int:
        return 60

    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        self.drawn += indices.tolist()
        inputs = torch.from_numpy(np.sin(indices[:, None, None] + np.arange(15).reshape(5, 3)))
        labels = torch.from_numpy((indices[:, None] + np.arange(5)) % 4)
        labels[torch.arange(5)[None, :] > torch.from_numpy(indices % 5)[:, None]] = -100
        return inputs.float(), labels

    def token_count(self, batch: Batch) -> int:
        return int((batch[1] != -100).sum()) if self.counts else 0

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        inputs, labels = batch
        self.calls.append(len(inputs))
        if len(inputs) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return F.cross_entropy(model(inputs).flatten(0, 1), labels.flatten())


def gradient_of(task: Words, parts: BatchParts, samples: int = 12) -> tuple[float, torch.Tensor]:
    net = FlatModel(task, torch.device("cpu"))
    net.flat.copy_(torch.linspace(-1, 1, net.flat.numel()))
    gradient = BatchGradient(task, Device(SETTINGS), net, ModelGuard(net, task), parts)
    loss, _ = gradient.compute(np.arange(samples))
    return loss, net.grad.clone()


def test_a_step_in_parts_has_the_gradient_of_the_mean_over_all_tokens() -> None:
    whole = gradient_of(Words(), BatchParts(12))
    for size in (1, 5, 6):
        loss, gradient = gradient_of(Words(), BatchParts(12, size))
        assert loss == pytest.approx(whole[0], rel=1e-6)
        torch.testing.assert_close(gradient, whole[1], rtol=1e-5, atol=1e-7)
    task = Words()
    task.counts = False
    # Without the task's count, parts weigh by samples, which gives another mean.
    assert gradient_of(task, BatchParts(12, 5))[0] != pytest.approx(whole[0], rel=1e-3)


def test_accumulated_batches_are_one_step() -> None:
    together, _ = loop_of(Words(), inner=Inner(batch_size=12))
    apart, _ = loop_of(Words(), inner=Inner(batch_size=4, accumulate=3))
    for loop in (together, apart):
        loop.train(LANE, 2)
        while loop.training:
            loop.step()
    one, other = together.pause(), apart.pause()
    assert (one.steps, one.samples) == (other.steps, other.samples) == (2, 24)
    torch.testing.assert_close(together._net.flat, apart._net.flat, rtol=1e-5, atol=1e-6)


def train(loop: TrainingLoop, steps: int) -> None:
    for _ in range(steps):
        loop.step()


def test_parts_halve_when_memory_runs_out_in_mid_run_and_no_sample_is_lost() -> None:
    task, plain = Words(), Words()
    loops = [loop_of(each, inner=Inner(batch_size=12))[0] for each in (task, plain)]
    for loop in loops:
        loop.train(LANE, None)
        train(loop, 1)
    task.room = 4
    for loop in loops:
        train(loop, 2)
    assert task.calls == [12, 12, 6, 3, 3, 3, 3, 3, 3, 3, 3]
    assert set(task.drawn) == set(plain.drawn)
    works = [loop.pause() for loop in loops]
    assert works[0].samples == works[1].samples == 36
    torch.testing.assert_close(loops[0]._net.flat, loops[1]._net.flat, rtol=1e-5, atol=1e-6)
    assert (loops[0].parts.news(), loops[0].parts.news()) == (3, 0)
    assert loops[0].bad.bad == 0


def test_a_sample_that_does_not_fit_alone_ends_the_worker() -> None:
    task = Words()
    task.room = 0
    loop, _ = loop_of(task, inner=Inner(batch_size=4))
    loop.train(LANE, None)
    with pytest.raises(MemoryShort, match="out of memory"):
        loop.step()
    assert task.calls == [4, 2, 1]
    assert loop.parts.news() == 0


def test_a_larger_part_is_tried_again_and_then_less_often() -> None:
    parts = BatchParts(8, 2)
    assert [len(part) for part in parts.of(np.arange(5))] == [2, 2, 1]
    for _ in range(GROW_AFTER):
        parts.used()
    assert parts.size == 4
    assert parts.halve()
    assert parts.size == 2
    for _ in range(2 * GROW_AFTER):
        assert parts.size == 2
        parts.used()
    assert parts.size == 4
    assert not BatchParts(1).halve()


@pytest.mark.parametrize("said", [1.5, True, None, -1])
def test_a_token_count_that_is_no_number_is_refused(
    said: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Words()
    monkeypatch.setattr(task, "token_count", lambda batch: said)
    with pytest.raises(TaskFault, match="returned"):
        gradient_of(task, BatchParts(12, 6))


def test_a_loss_scale_follows_that_of_torch() -> None:
    ours, theirs = LossScale(enabled=True), torch.amp.GradScaler("cpu")
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    for number in range(GROWTH_INTERVAL + 5):
        overflows = number in (1, 2)
        theirs.scale(weight.sum() * (float("inf") if overflows else 1.0)).backward()
        theirs.step(optimizer)
        theirs.update()
        optimizer.zero_grad()
        if overflows:
            assert ours.overflowed()
        else:
            ours.used()
        assert ours.scale == theirs.get_scale()
    assert not LossScale(enabled=False).overflowed()


def test_an_overflow_of_a_scaled_loss_computes_the_step_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device(SETTINGS)
    monkeypatch.setattr(device, "scales_loss", True)
    task = Words()
    net = FlatModel(task, torch.device("cpu"))
    gradient = BatchGradient(task, device, net, ModelGuard(net, task), BatchParts(12))
    plain = gradient_of(task, BatchParts(12))
    net.flat.copy_(torch.linspace(-1, 1, net.flat.numel()))
    gradient._scale.scale = 2.0**127
    loss, _ = gradient.compute(np.arange(12))
    assert gradient._scale.scale < 2.0**127
    assert loss == pytest.approx(plain[0])
    torch.testing.assert_close(net.grad, plain[1])
