"""The other arms of `bench training` take the steps that the native arm's optimizer takes."""

from __future__ import annotations

import copy
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from daemon.device.model.flat_model import FlatModel
from daemon.device.optimizers.choice import make_optimizer
from daemon.device.tasks.catalog import load_task
from protocol.run.initial_parameters import initial_parameters
from protocol.run.manifest import Inner
from simulator.bench.training.peer_settings import OptimizerRules
from simulator.bench.training.plain_optimizer import inner_optimizer
from simulator.bench.training.plain_training import load_vector, vector_of
from tests.daemon.device.loops import SETTINGS

OPTIONS = {"layers": 2, "heads": 2, "width": 16, "context": 16, "corpus_bytes": 50_000}
STEPS = 4

Name = Literal["adamw", "muon"]


def rules_of(name: Name) -> OptimizerRules:
    return OptimizerRules(
        learning_rate=0.01, optimizer=name, momentum=0.9, beta1=0.5, beta2=0.95, weight_decay=0.0
    )


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_plain_torch_moves_the_parameters_as_the_native_optimizer_does(name: Name) -> None:
    task = load_task("byte_gpt", OPTIONS, SETTINGS)
    flat = FlatModel(task, torch.device("cpu"))
    start = initial_parameters(flat.specs, 1)
    flat.flat.copy_(torch.from_numpy(start))
    inner = Inner(
        optimizer=name,
        learning_rate=0.01,
        beta1=0.5,
        beta2=0.95,
        clip_norm=1e9,
        momentum=0.9 if name == "muon" else None,
    )
    native = make_optimizer(flat, inner, task)
    model = task.model()
    load_vector(model, start)
    plain = inner_optimizer(model, rules_of(name))([*model.parameters()])
    for number in range(STEPS):
        batch = task.batch(np.arange(4) + 4 * number)
        flat.zero_grad()
        task.loss(flat.model, batch).backward()
        native.step(float(flat.grad_norm()), 1.0)
        plain.zero_grad()
        task.loss(model, batch).backward()
        plain.step()
    moved = vector_of(model)
    assert np.abs(moved - start).max() > 0.01
    np.testing.assert_allclose(moved, flat.flat.numpy(), rtol=0, atol=2e-5)


def test_a_restored_optimizer_of_both_rules_goes_on_as_if_it_had_not_ended() -> None:
    torch.manual_seed(1)
    first = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = inner_optimizer(first, rules_of("muon"))([*first.parameters()])

    def step(model: nn.Module, one: torch.optim.Optimizer, turn: int) -> None:
        for index, parameter in enumerate(model.parameters()):
            slope = torch.linspace(turn - 1, 1 + index, parameter.numel())
            parameter.grad = slope.view(parameter.shape)
        one.step()

    step(first, optimizer, 0)
    second = copy.deepcopy(first)
    again = inner_optimizer(second, rules_of("muon"))([*second.parameters()])
    fresh = copy.deepcopy(first)
    forgetful = inner_optimizer(fresh, rules_of("muon"))([*fresh.parameters()])
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for turn in (1, 2):
        step(first, optimizer, turn)
        step(second, again, turn)
        step(fresh, forgetful, turn)
    # Muon computes in bfloat16, whose rounding follows how the memory of a matrix is aligned.
    np.testing.assert_allclose(vector_of(second), vector_of(first), rtol=0, atol=1e-4)
    assert np.abs(vector_of(fresh) - vector_of(first)).max() > 1e-3


def test_an_optimizer_of_both_rules_refuses_parameters_of_another_model() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="zip"):
        inner_optimizer(model, rules_of("muon"))([model.weight])
