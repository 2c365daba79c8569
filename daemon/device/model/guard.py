"""Notices when a model no longer computes with the averaged parameters. Worker process only.

The optimizer moves the flat vector. It does not move a parameter whose memory is elsewhere, that
was added later, or that no module has registered. A buffer or a frozen parameter that changes
differs on every node. In both cases, the training silently differs from the author's intention. The
guard names the tensor before the step that would use it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from daemon.device.model.author_code import TaskFault
from daemon.device.model.flat_model import FlatModel
from daemon.device.model.rules import batch_counts
from daemon.device.tasks.task import Task

# Constant tensors up to this size are compared by content at each hand-over, in 10 ms. The rest is
# compared by torch's count of changes.
COMPARED_BYTES = 16 << 20
# The depth of lists and dicts in which the name of a tensor is searched.
SEARCH_DEPTH = 4
# The attributes in which torch keeps what a module has registered.
_REGISTERED = frozenset({"_parameters", "_buffers", "_modules"})
_NORMS = (nn.modules.batchnorm._NormBase,)


class ModelGuard:
    """Remembers the model as it was loaded, and compares it.

    Each check raises a `TaskFault` that names the tensor and says what to do.
    """

    def __init__(self, net: FlatModel, task: Task) -> None:
        self._net, self._task = net, task
        self._addresses = [parameter.data_ptr() for _, parameter, _ in net.moved]
        self._moved = {id(parameter): name for name, parameter, _ in net.moved}
        self._kept: dict[str, _Kept] = {}
        room = COMPARED_BYTES
        for name, tensor in [*net.buffers, *net.frozen]:
            room -= tensor.numel() * tensor.element_size()
            self._kept[name] = _Kept(tensor, content=room >= 0)
        self._statistics = [(name, tensor, tensor.data_ptr()) for name, tensor in net.averaged]
        # Tensors that training changes: running statistics, and their counters of batches.
        self._changing = {id(tensor) for _, tensor in net.averaged}
        self._changing |= {id(count) for count in batch_counts(net.model)}
        self._frozen = {id(parameter) for _, parameter in net.frozen}

    def check_moved(self) -> None:
        """Check that the model computes with the parameters that the optimizer moves.

        This is cheap enough for every update.
        """
        for (name, parameter, _), address in zip(self._net.moved, self._addresses, strict=True):
            if parameter.data_ptr() != address:
                raise TaskFault(
                    f"The parameter {name} was given other memory (`.data` assigned anew, .to(),"
                    " .half()): the optimizer would move the old",
                    fix=f"change it in place: {name}.data.copy_(...) or {name}.data.mul_(...)",
                )
            if not parameter.requires_grad:
                raise TaskFault(
                    f"The parameter {name} was frozen during training",
                    fix="set requires_grad = False in model(), where it holds for every node",
                )
        for name, tensor, address in self._statistics:
            if tensor.data_ptr() != address:
                raise TaskFault(
                    f"The statistic {name} was given other memory: it would not be averaged",
                    fix=f"change it in place: {name}.copy_(...)",
                )

    def check_model(self) -> None:
        """Check that no parameter was added, removed or replaced, and no constant has changed.

        This walks over the whole model.
        """
        self.check_moved()
        names: set[int] = set()
        for name, parameter in self._net.model.named_parameters():
            names.add(id(parameter))
            if id(parameter) not in self._moved and parameter.requires_grad:
                how = "thawed" if id(parameter) in self._frozen else "added or replaced"
                raise TaskFault(
                    f"The parameter {name} requires a gradient and was {how} after model(): the"
                    " optimizer does not move it",
                    fix="make all parameters in model(), and give them their requires_grad there",
                )
        for number, name in self._moved.items():
            if number not in names:
                raise TaskFault(
                    f"The parameter {name} is no longer part of the model",
                    fix="keep the model as model() made it",
                )
        self._check_constant(contents=False)

    def check_hand_over(self) -> None:
        """Check the model by content, before a hand-over."""
        self.check_model()
        self._check_constant(contents=True)

    def _check_constant(self, *, contents: bool) -> None:
        model = self._net.model
        for name, tensor in _constant(model):
            if id(tensor) in self._changing:
                continue
            kept = self._kept.get(name)
            if kept is None:
                if _is_persistent(model, name):
                    raise TaskFault(
                        f"The buffer {name} was added after model()", fix="register it in model()"
                    )
                continue
            if kept.changed(tensor, content=contents):
                raise TaskFault(
                    f"{_kind(name, model)} {name} changed during training: it is not averaged, so"
                    " every node would have its own",
                    fix=_instead(name, model),
                )

    def check_graph(self, loss: torch.Tensor) -> None:
        """Check that the optimizer moves every parameter that the loss depends on.

        This walks over autograd's graph.
        """
        for leaf in _leaves(loss):
            if id(leaf) in self._moved:
                continue
            name = self._name_of(leaf)
            if isinstance(leaf, nn.Parameter) or name:
                raise TaskFault(
                    f"{name or 'A parameter'} of shape {tuple(leaf.shape)} requires a gradient and"
                    " is not among the model's parameters: the optimizer does not move it",
                    fix="register it: an attribute of a module, or nn.ModuleList and"
                    " nn.ParameterList instead of a list; or detach() it",
                )

    def _name_of(self, wanted: torch.Tensor) -> str:
        places: list[tuple[str, object]] = [("task", vars(self._task))]
        places += [
            (f"model.{at}" if at else "model", vars(module))
            for at, module in self._net.model.named_modules()
        ]
        for at, holder in places:
            for name, tensor in _tensors_in(holder, at, SEARCH_DEPTH):
                if tensor is wanted:
                    return name
        return ""


class _Kept:
    """A constant tensor as it was: its address, torch's count of changes, and maybe its content."""

    def __init__(self, tensor: torch.Tensor, *, content: bool) -> None:
        self._seen = tensor.data_ptr(), _changes(tensor)
        self._content = tensor.detach().to("cpu", copy=True) if content else None

    def changed(self, tensor: torch.Tensor, *, content: bool) -> bool:
        seen = tensor.data_ptr(), _changes(tensor)
        if self._content is None:
            return seen != self._seen
        if seen == self._seen and not content:
            return False
        if tensor.shape != self._content.shape or tensor.dtype != self._content.dtype:
            return True
        now = tensor.detach().to("cpu")
        if not torch.equal(now, self._content) and not _both_nan(now, self._content):
            return True
        # It was rewritten with the same content.
        self._seen = seen
        return False


def _both_nan(now: torch.Tensor, before: torch.Tensor) -> bool:
    return now.is_floating_point() and torch.equal(torch.nan_to_num(now), torch.nan_to_num(before))


def _changes(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _constant(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            yield name, parameter
    yield from model.named_buffers()


def _is_persistent(model: nn.Module, name: str) -> bool:
    """Return whether a buffer is part of the model's state. Other buffers are caches."""
    owner, _, own = name.rpartition(".")
    try:
        return own not in model.get_submodule(owner)._non_persistent_buffers_set
    except AttributeError:
        return True


def _kind(name: str, model: nn.Module) -> str:
    return (
        "The frozen parameter"
        if any(name == at for at, _ in model.named_parameters())
        else "The buffer"
    )


def _instead(name: str, model: nn.Module) -> str:
    owner = name.rpartition(".")[0]
    module = dict(model.named_modules()).get(owner)
    if isinstance(module, _NORMS):
        return "set train or eval mode in model(): in training mode, its statistics are averaged"
    return "keep it constant, or make it a parameter that requires a gradient"


def _leaves(loss: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the tensors into which a backward pass would add gradients."""
    seen: set[Any] = set()
    ahead: list[Any] = [loss.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        ahead.extend(following for following, _ in node.next_functions)


def _tensors_in(holder: object, at: str, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(holder, torch.Tensor):
        yield at, holder
    elif depth == 0:
        return
    elif isinstance(holder, nn.Module) and depth < SEARCH_DEPTH:
        yield from ((f"{at}.{name}", parameter) for name, parameter in holder.named_parameters())
    elif isinstance(holder, Mapping):
        for key, value in list(holder.items()):
            if key in _REGISTERED:
                continue
            named = f"{at}.{key}" if depth == SEARCH_DEPTH else f"{at}[{key!r}]"
            yield from _tensors_in(value, named, depth - 1)
    elif isinstance(holder, list | tuple):
        for place, value in enumerate(holder):
            yield from _tensors_in(value, f"{at}[{place}]", depth - 1)
