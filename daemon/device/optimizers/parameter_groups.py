"""Divides a model's trained parameters among learning rates, weight decays and rules.

Worker process only. Without groups of the task's own, matrices and kernels decay, biases and norms
do not. A task's groups are those of `torch.optim`: dicts with `params`, and perhaps `lr`,
`weight_decay` and `muon`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import torch
from torch import nn

from daemon.device.model.author_code import TaskFault, author_code, place_of
from daemon.device.model.flat_model import FlatModel
from daemon.device.tasks.task import Task
from protocol.run.manifest import Inner

_KEYS = ("params", "lr", "weight_decay", "muon")


class ParameterPart(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter: the elements [`start`, `stop`) of the flat vector, and its rules.

    `is_hidden_matrix` says that Muon may move the parameter: it has two dimensions, and is no
    embedding (https://kellerjordan.github.io/posts/muon/).
    """

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]
    learning_rate: float
    weight_decay: float
    is_hidden_matrix: bool = False

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.stop - self.start


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive parameters with the same rules.

    `at` is the first element's place in an optimizer's state vectors, which hold only the
    parameters that the optimizer moves.
    """

    start: int
    stop: int
    at: int

    def of(self, vector: torch.Tensor) -> torch.Tensor:
        """Return the span's elements of a vector over all parameters."""
        return vector[self.start : self.stop]

    def state_of(self, vector: torch.Tensor) -> torch.Tensor:
        """Return the span's elements of a state vector."""
        return vector[self.at : self.at + self.stop - self.start]


def parts_of(net: FlatModel, rules: Inner, task: Task | None = None) -> list[ParameterPart]:
    """Return the parts of a model's flat vector, in its order.

    Raises `TaskFault` for groups that leave a parameter out, name one twice or cannot be read.
    """
    embeddings = {
        id(parameter)
        for module in net.model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for parameter in module.parameters(recurse=False)
    }
    chosen = _groups_of(task, net) if task is not None else None
    parts: list[ParameterPart] = []
    start = 0
    for name, parameter, _ in net.moved:
        stop = start + parameter.numel()
        group = chosen[id(parameter)] if chosen is not None else {}
        decays = rules.weight_decay if parameter.ndim >= 2 or chosen is not None else 0.0
        parts.append(
            ParameterPart(
                name=name,
                start=start,
                stop=stop,
                shape=tuple(parameter.shape),
                learning_rate=float(group.get("lr", rules.learning_rate)),
                weight_decay=float(group.get("weight_decay", decays)),
                is_hidden_matrix=parameter.ndim == 2
                and id(parameter) not in embeddings
                and bool(group.get("muon", True)),
            )
        )
        start = stop
    return parts


def spans_of(parts: Iterable[ParameterPart]) -> dict[tuple[float, float], list[Span]]:
    """Return the spans of parameters that follow each other, by (learning rate, weight decay).

    One call of a fused kernel moves all spans of one pair.
    """
    found: dict[tuple[float, float], list[Span]] = {}
    at, last = 0, None
    for part in parts:
        rules = part.learning_rate, part.weight_decay
        spans = found.setdefault(rules, [])
        if spans and rules == last and spans[-1].stop == part.start:
            spans[-1] = msgspec.structs.replace(spans[-1], stop=part.stop)
        else:
            spans.append(Span(start=part.start, stop=part.stop, at=at))
        at, last = at + part.size, rules
    return found


def _groups_of(task: Task, net: FlatModel) -> dict[int, Mapping[str, Any]] | None:
    """Return the group of each trained parameter, by the parameter's id; None without groups."""
    with author_code("parameter_groups()"):
        said = task.parameter_groups(net.model)
    if said is None:
        return None
    where = place_of(task.parameter_groups)
    names = {id(parameter): name for name, parameter, _ in net.moved}
    found: dict[int, Mapping[str, Any]] = {}
    for number, group in enumerate(said, start=1):
        _check_group(group, number, where)
        params = group["params"]
        for parameter in [params] if isinstance(params, torch.Tensor) else list(params):
            if id(parameter) in found:
                raise TaskFault(
                    f"{where} names {names[id(parameter)]} in two groups",
                    fix="put each parameter into one group",
                )
            # A frozen parameter may be part of a group, as in torch: nothing moves it.
            if id(parameter) in names:
                found[id(parameter)] = group
            elif getattr(parameter, "requires_grad", True):
                raise TaskFault(
                    f"{where} names a parameter in group {number} that the model does not have",
                    fix="take the parameters from the model that parameter_groups() gets",
                )
    for number_of, name in names.items():
        if number_of not in found:
            raise TaskFault(
                f"The parameter {name} requires a gradient, and no group of {where} has it: the"
                " optimizer would not move it",
                fix="put it into a group, or set its requires_grad = False in model()",
            )
    return found


def _check_group(group: object, number: int, where: str) -> None:
    if not isinstance(group, Mapping) or "params" not in group:
        raise TaskFault(
            f'{where} returned a {type(group).__name__} without "params" as group {number}',
            fix='return dicts as for torch.optim: [{"params": model.head.parameters()}]',
        )
    unknown = [key for key in group if key not in _KEYS]
    if unknown:
        raise TaskFault(
            f"Group {number} of {where} has the key {unknown[0]!r}",
            fix=f"a group knows {', '.join(_KEYS)}; the run's file has all other rules",
        )
    for key in ("lr", "weight_decay"):
        value = group.get(key, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
            raise TaskFault(
                f"Group {number} of {where} has {key} = {value!r}", fix="give a number, 0 or more"
            )
    if not isinstance(group["params"], torch.Tensor | Sequence) and not hasattr(
        group["params"], "__iter__"
    ):
        raise TaskFault(
            f'Group {number} of {where} has a {type(group["params"]).__name__} as "params"',
            fix="give a list of parameters",
        )
