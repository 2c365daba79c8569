"""Tests of BatchNorm: its running statistics are averaged with the parameters."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from daemon.device.model.author_code import SampleFault
from daemon.device.model.flat_model import FlatModel
from daemon.device.tasks.task import Batch, Task, TaskOptions
from protocol.errors import UserError
from protocol.ports.trainer import HeldOutShare
from protocol.run.manifest import Inner
from tests.daemon.device.loops import LANE, loop_of

RULES = Inner(batch_size=8, learning_rate=0.01, clip_norm=1e9)


class Normed(Task):
    """A model with BatchNorm. The sample `bad` is infinite."""

    bad = -1
    momentum: float | None = 0.1

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(2, 4), nn.BatchNorm1d(4, momentum=self.momentum), nn.Linear(4, 1)
        )

    def dataset_size(self) -> int:
        return 64

    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        inputs = torch.from_numpy(np.sin(np.stack([indices, 3.0 * indices + 1], 1))).float()
        inputs[torch.from_numpy(indices == self.bad)] = float("inf")
        return inputs, inputs.sum(1, keepdim=True)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return F.mse_loss(model(batch[0]), batch[1])


def task_of(**attributes: object) -> Normed:
    task = Normed(TaskOptions())
    for name, value in attributes.items():
        setattr(task, name, value)
    return task


def test_a_step_with_batch_norm_is_that_of_plain_torch() -> None:
    task = task_of()
    loop, _ = loop_of(task, inner=RULES)
    names = [spec.name for spec in loop.specs]
    assert names[-2:] == ["1.running_mean", "1.running_var"]
    assert [part.name for part in loop.describe().parameters] == names
    theirs = task.model()
    loop.train(LANE, 4)
    theirs.load_state_dict({**loop._net.model.state_dict()})
    drawn: list[npt.NDArray[np.int64]] = []
    fetch = task.batch
    task.batch = lambda indices: (drawn.append(indices), fetch(indices))[1]  # type: ignore[method-assign]
    while loop.training:
        loop.step()
    parts = list(theirs.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [part for part in parts if part.ndim >= 2]},
            {"params": [part for part in parts if part.ndim < 2]},
        ],
        lr=0.01,
        betas=(0.9, 0.99),
        weight_decay=0.0,
        fused=True,
    )
    for indices in drawn:
        optimizer.zero_grad()
        task.loss(theirs, fetch(indices)).backward()
        optimizer.step()
    ours = loop._net.model.state_dict()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6)
    # The statistics are part of the work.
    assert torch.equal(loop._net.flat[-8:-4], loop._net.model[1].running_mean)
    assert not torch.equal(ours["1.running_var"], torch.ones(4))


def test_the_work_holds_the_change_of_the_statistics() -> None:
    loop, shared = loop_of(task_of(), inner=RULES)
    loop.train(LANE, 2)
    while loop.training:
        loop.step()
    loop.pause()
    mean = loop._net.model[1].running_mean.numpy()
    assert np.array_equal(shared.delta[-8:-4], shared.anchor[-8:-4] - mean)
    assert shared.delta[-8:].all()


def test_a_batch_that_cannot_be_used_leaves_the_statistics_as_they_were() -> None:
    task = task_of()
    loop, _ = loop_of(task, inner=RULES)
    loop.train(LANE, None)
    loop.step()
    before = loop._net.flat.clone()
    task.bad = 0
    task.batch = lambda indices: Normed.batch(task, np.zeros_like(indices))  # type: ignore[method-assign]
    with pytest.raises(SampleFault, match="The loss is nan"):
        loop.step()
    assert torch.equal(loop._net.flat, before)


def test_a_score_uses_the_statistics_of_the_scored_parameters() -> None:
    loop, shared = loop_of(task_of(), inner=RULES, holds_out=True)
    loop.train(LANE, 0)
    whole = HeldOutShare(index=0, count=1)
    shared.scored[:] = shared.anchor
    plain = loop.evaluate(whole).loss
    shared.scored[-4:] = 100.0
    assert loop.evaluate(whole).loss != pytest.approx(plain)
    # A variance below zero has no square root.
    shared.scored[-4:] = -1e-3
    assert np.isfinite(loop.evaluate(whole).loss)
    assert torch.equal(loop._net.model[1].running_var, torch.ones(4))


def test_statistics_that_count_batches_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="cannot be trained") as refused:
        FlatModel(task_of(momentum=None), torch.device("cpu"))
    assert "1 is a BatchNorm1d with momentum=None" in refused.value.why
