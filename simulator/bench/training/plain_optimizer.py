"""The inner optimizer of every arm but native: torch's own, as a user of plain torch would have it.

Muon moves hidden matrices only. Its users give the other parameters to AdamW
(https://kellerjordan.github.io/posts/muon/). hivemind takes one optimizer, so the two are one here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from simulator.bench.training.peer_settings import OptimizerRules

Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]


def hidden_matrices(model: nn.Module) -> list[bool]:
    """For each parameter of a model in order, whether Muon may move it: a matrix, no embedding."""
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    return [one.dim() == 2 and id(one) not in embeddings for one in model.parameters()]


def plain_optimizer(parameters: Parameters, rules: OptimizerRules) -> torch.optim.Optimizer:
    """torch's AdamW with the rules of the native engine's inner optimizer."""
    return torch.optim.AdamW(
        parameters,
        lr=rules.learning_rate,
        betas=(rules.beta1, rules.beta2),
        weight_decay=rules.weight_decay,
    )


class MuonAndAdamW(torch.optim.Optimizer):
    """torch's Muon for hidden matrices and torch's AdamW for the rest, as one optimizer.

    Both take their state and their groups from this one, so that `state_dict` holds everything, and
    what changes a group's rate or a state's tensors from outside takes effect.
    """

    def __init__(self, parameters: Parameters, rules: OptimizerRules, hidden: list[bool]) -> None:
        """Make the optimizer of parameters in a model's order, of which `hidden` belong to Muon.

        Raises:
            ValueError: When there are more or fewer parameters than `hidden` tells of.
        """
        flat: list[nn.Parameter] = []
        for one in parameters:
            flat += one["params"] if isinstance(one, dict) else [one]
        matrices = [one for one, mine in zip(flat, hidden, strict=True) if mine]
        others = [one for one, mine in zip(flat, hidden, strict=True) if not mine]
        self._muon = torch.optim.Muon(
            matrices,
            lr=rules.learning_rate,
            weight_decay=rules.weight_decay,
            momentum=rules.momentum,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adamw = plain_optimizer(others, rules)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make one step from the gradients. Takes no closure."""
        if closure is not None:
            raise ValueError("no closure: the gradients are computed once for both optimizers")
        muon, *rest = self.param_groups
        for part, groups in ((self._muon, [muon]), (self._adamw, rest)):
            part.state, part.param_groups = self.state, groups
            part.step()
        return None


def inner_optimizer(
    model: nn.Module, rules: OptimizerRules
) -> Callable[[Parameters], torch.optim.Optimizer]:
    """What makes the optimizer of a model's parameters, or of copies of them in the same order."""
    if rules.optimizer == "adamw":
        return lambda parameters: plain_optimizer(parameters, rules)
    hidden = hidden_matrices(model)
    return lambda parameters: MuonAndAdamW(parameters, rules, hidden)
