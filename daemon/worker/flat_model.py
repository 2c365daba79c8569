"""A model whose parameters are all views of one flat tensor, and their gradients of another. Worker process only.

The swarm speaks of vectors, torch of modules; here they are the same memory. To take an anchor is one copy, to make a delta one
subtraction, to clip one norm.
"""

from __future__ import annotations

import torch
from torch import nn

from daemon.worker.tasks.task import Task
from protocol.errors import UserError
from protocol.ports import ParameterSpec


def _refuse(why: str, fix: str) -> UserError:
    return UserError("TASK", "The task's model cannot be trained in a swarm.", why=why, fix=fix, exit_code=2)


def _check(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:
            raise _refuse(
                f"{name or 'it'} is a {type(module).__name__}, whose running statistics are no parameters: every node would keep its own",
                "use GroupNorm or LayerNorm",
            )
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise _refuse(
                f"the parameter {name} is {parameter.dtype}", "make parameters float32; the precision setting chooses the arithmetic"
            )


class FlatModel:
    """`flat` and `grad`, shape (parameters,) on the device; `model` computes with them; `specs` names the parts.

    `decayed` are the views to which weight decay applies: matrices and kernels, not biases and norms.
    """

    def __init__(self, task: Task, device: torch.device) -> None:
        """Raises `UserError("TASK")` for a model that cannot be one flat vector of float32 parameters."""
        self.model = task.model()
        _check(self.model)
        self.model.to(device).train()
        named = list(self.model.named_parameters())  # tied ones once
        total = sum(parameter.numel() for _, parameter in named)
        if not total:
            raise _refuse("it has no parameters", "return a module with parameters from model()")
        self.flat = torch.zeros(total, device=device)
        self.grad = torch.zeros(total, device=device)
        self.decayed: list[torch.Tensor] = []
        specs: list[ParameterSpec] = []
        self._views: list[tuple[nn.Parameter, torch.Tensor]] = []
        start = 0
        for name, parameter in named:
            shape, stop = tuple(parameter.shape), start + parameter.numel()
            parameter.data = self.flat[start:stop].view(shape)
            self._views.append((parameter, self.grad[start:stop].view(shape)))
            if len(shape) >= 2:
                self.decayed.append(parameter.data)
            init = task.init(name, shape)
            specs.append(ParameterSpec(name=name, shape=shape, init=init.kind, bound=init.bound))
            start = stop
        self.specs = tuple(specs)
        self.zero_grad()

    def zero_grad(self) -> None:
        """Zeros in place, and the views back in their places should the task's code have replaced one."""
        self.grad.zero_()
        for parameter, view in self._views:
            if parameter.requires_grad:
                parameter.grad = view
