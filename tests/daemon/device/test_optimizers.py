"""Tests of SGD, Muon and parameter groups against plain torch, byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from daemon.device.model.author_code import TaskFault
from daemon.device.model.flat_model import FlatModel
from daemon.device.optimizers.choice import make_optimizer
from daemon.device.tasks.catalog import load_task
from daemon.device.tasks.task import Task
from protocol.run.initial_parameters import initial_parameters
from protocol.run.manifest import Inner, Manifest
from tests.daemon.device.faulty_tasks import Line, LineOptions
from tests.daemon.device.loops import SETTINGS, loop_of

OPTIONS = {"layers": 2, "heads": 2, "width": 16, "context": 16, "corpus_bytes": 50_000}
FACTORS = (0.25, 0.5, 1.0, 0.7)

Groups = list[dict[str, Any]]
Make = Callable[[list[tuple[str, nn.Parameter]]], list[torch.optim.Optimizer]]


def gpt() -> Task:
    return load_task("byte_gpt", OPTIONS, SETTINGS)


def flat_model(task: Task) -> FlatModel:
    flat = FlatModel(task, torch.device("cpu"))
    flat.flat.copy_(torch.from_numpy(initial_parameters(flat.specs, 1)))
    return flat


def steps_alike(task: Task, rules: Inner, make: Make) -> bool:
    """Whether our optimizer and torch's make the same bytes from the same gradients."""
    flat = flat_model(task)
    ours = make_optimizer(flat, rules, task)
    theirs = [(name, nn.Parameter(part.detach().clone())) for name, part, _ in flat.moved]
    optimizers = make(theirs)
    rates = [[group["lr"] for group in one.param_groups] for one in optimizers]
    for number, factor in enumerate(FACTORS):
        flat.zero_grad()
        task.loss(flat.model, task.batch(np.arange(4) + 4 * number)).backward()
        for (_, part), (_, _, gradient) in zip(theirs, flat.moved, strict=True):
            part.grad = gradient.clone()
        for optimizer, own in zip(optimizers, rates, strict=True):
            for group, rate in zip(optimizer.param_groups, own, strict=True):
                group["lr"] = rate * factor
            optimizer.step()
        ours.step(float(flat.grad_norm()), factor)
    return torch.equal(flat.flat, torch.cat([part.detach().flatten() for _, part in theirs]))


def by_dimension(named: Sequence[tuple[str, nn.Parameter]], weight_decay: float) -> Groups:
    return [
        {"params": [part for _, part in named if part.ndim >= 2], "weight_decay": weight_decay},
        {"params": [part for _, part in named if part.ndim < 2], "weight_decay": 0.0},
    ]


@pytest.mark.parametrize(
    ("momentum", "nesterov", "weight_decay"),
    [(0.0, False, 0.0), (0.9, False, 0.1), (0.8, True, 0.1)],
)
def test_sgd_computes_the_bytes_of_torch(
    momentum: float, nesterov: bool, weight_decay: float
) -> None:
    rules = Inner(
        optimizer="sgd",
        learning_rate=0.05,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        clip_norm=1e9,
    )
    assert steps_alike(
        gpt(),
        rules,
        lambda named: [
            torch.optim.SGD(
                by_dimension(named, weight_decay),
                lr=0.05,
                momentum=momentum,
                nesterov=nesterov,
                fused=True,
            )
        ],
    )


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_muon_computes_the_bytes_of_torch(weight_decay: float) -> None:
    """Hidden matrices by `torch.optim.Muon`, embeddings and norms by AdamW."""
    rules = Inner(
        optimizer="muon", learning_rate=0.01, weight_decay=weight_decay, clip_norm=1e9, momentum=0.9
    )

    def make(named: list[tuple[str, nn.Parameter]]) -> list[torch.optim.Optimizer]:
        hidden = [part for name, part in named if part.ndim == 2 and name.startswith("blocks")]
        rest = [(name, part) for name, part in named if not any(part is one for one in hidden)]
        assert len(hidden) == 8
        return [
            torch.optim.Muon(
                hidden,
                lr=0.01,
                weight_decay=weight_decay,
                momentum=0.9,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(
                by_dimension(rest, weight_decay), lr=0.01, betas=(0.9, 0.99), fused=True
            ),
        ]

    assert steps_alike(gpt(), rules, make)


class HeadFaster(Line):
    """Two groups with rates of their own."""

    groups: Callable[[nn.Module], Sequence[Mapping[str, Any]] | None]

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1))

    def parameter_groups(self, model: nn.Module) -> Sequence[Mapping[str, Any]] | None:
        return self.groups(model)


def test_parameter_groups_have_the_rates_of_torch() -> None:
    task = HeadFaster(LineOptions())
    task.groups = lambda model: [
        {"params": model[2].parameters(), "lr": 0.1},
        {"params": [*model[0].parameters()], "weight_decay": 0.3},
    ]
    rules = Inner(learning_rate=0.01, weight_decay=0.2, clip_norm=1e9)
    assert steps_alike(
        task,
        rules,
        lambda named: [
            torch.optim.AdamW(
                [
                    {"params": [part for name, part in named if name.startswith("2")], "lr": 0.1},
                    {
                        "params": [part for name, part in named if name.startswith("0")],
                        "weight_decay": 0.3,
                    },
                ],
                lr=0.01,
                weight_decay=0.2,
                betas=(0.9, 0.99),
                fused=True,
            )
        ],
    )


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (lambda model: [{"params": model[2].parameters()}], "The parameter 0.weight requires"),
        (lambda model: [{"params": [*model.parameters()]}] * 2, "names 0.weight in two groups"),
        (lambda model: [{"params": model.parameters(), "betas": (1, 2)}], "has the key 'betas'"),
        (lambda model: [{"params": model.parameters(), "lr": -1.0}], "has lr = -1.0"),
        (lambda model: [list(model.parameters())], 'without "params"'),
        (lambda model: [{"params": 3}], 'has a int as "params"'),
        (lambda model: [{"params": nn.Linear(1, 1).parameters()}], "the model does not have"),
    ],
)
def test_groups_that_cannot_be_used_are_refused_before_the_first_step(
    groups: Callable[[nn.Module], Any], words: str
) -> None:
    task = HeadFaster(LineOptions())
    task.groups = groups
    with pytest.raises(TaskFault, match=words):
        loop_of(task)


@pytest.mark.parametrize(
    "rules", [Inner(optimizer="sgd"), Inner(optimizer="muon"), Inner(optimizer="sgd", momentum=0.0)]
)
def test_a_restored_optimizer_goes_on_as_if_it_had_not_ended(rules: Inner) -> None:
    task = gpt()
    first = flat_model(task)
    ours = make_optimizer(first, rules, task)
    gradient = torch.linspace(-1, 1, first.flat.numel())
    for _ in range(3):
        first.grad.copy_(gradient)
        ours.step(1.0)
    state = torch.empty(ours.state_size)
    ours.save(state)
    second = flat_model(task)
    second.flat.copy_(first.flat)
    again = make_optimizer(second, rules, task)
    again.load(state)
    for net, optimizer in ((first, ours), (second, again)):
        net.grad.copy_(gradient)
        optimizer.step(1.0)
    assert torch.equal(first.flat, second.flat)
    state[0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        again.load(state)


def test_a_manifest_refuses_a_momentum_that_the_optimizer_does_not_have() -> None:
    with pytest.raises(ValueError, match="beta1"):
        Inner(momentum=0.9)
    with pytest.raises(ValueError, match="nesterov"):
        Inner(optimizer="sgd", momentum=0.0, nesterov=True)
    assert Inner(optimizer="sgd").effective_momentum == 0.9


def test_a_manifest_of_earlier_rules_has_no_choice_of_the_optimizer() -> None:
    with pytest.raises(ValueError, match=r"rules 3 have no inner.optimizer"):
        Manifest(name="early", task="byte_gpt", rules=3, inner=Inner(optimizer="sgd"))
    with pytest.raises(ValueError, match=r"rules 3 have no inner.accumulate"):
        Manifest(name="early", task="byte_gpt", rules=3, inner=Inner(accumulate=2))
