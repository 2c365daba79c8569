"""Makes a model's trained parameters views of one flat tensor. Worker process only.

Their gradients are views of another flat tensor. To load an anchor is one copy, to make a delta is
one subtraction, and to clip is one norm. Parameters with `requires_grad = False` and buffers keep
their own memory, and the values that the task gave them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from daemon.device.model.author_code import author_code
from daemon.device.model.rules import check_model
from daemon.device.tasks.task import GIVEN, Init, Task
from protocol.ports.trainer import ParameterSpec


class FlatModel:
    """A model over the vectors `flat` and `grad`, shape (parameters,) on the device.

    `specs` describes the parameters. `moved` are the trained parameters with their names and their
    views of `grad`. `frozen` and `buffers` are the model's other tensors.
    """

    def __init__(self, task: Task, device: torch.device) -> None:
        """Make the task's model.

        Raises `UserError("TASK")` for a model that cannot be one flat vector of float32
        parameters, and `TaskFault` where the task fails.
        """
        with author_code("model()"):
            model = task.model()
        check_model(model)
        self.model: nn.Module = model
        # The task chooses the mode: a part in eval mode stays in eval mode.
        self.model.to(device)
        # A tied parameter appears once.
        named = list(self.model.named_parameters())
        trained = [(name, parameter) for name, parameter in named if parameter.requires_grad]
        self.frozen = [
            (name, parameter) for name, parameter in named if not parameter.requires_grad
        ]
        self.buffers = list(self.model.named_buffers())
        total = sum(parameter.numel() for _, parameter in trained)
        self.flat = torch.zeros(total, device=device)
        self.grad = torch.zeros(total, device=device)
        self.moved: list[tuple[str, nn.Parameter, torch.Tensor]] = []
        specs: list[ParameterSpec] = []
        start = 0
        for name, parameter in trained:
            shape, stop = tuple(parameter.shape), start + parameter.numel()
            given = parameter.data
            parameter.data = self.flat[start:stop].view(shape)
            self.moved.append((name, parameter, self.grad[start:stop].view(shape)))
            with author_code("init()"):
                init = task.init(name, shape)
                if not isinstance(init, Init):
                    raise TypeError(
                        f"init({name!r}) returned a {type(init).__name__}, not ZEROS, ONES, GIVEN"
                        " or uniform(bound)"
                    )
            if init == GIVEN:
                parameter.data.copy_(given)
            specs.append(ParameterSpec(name=name, shape=shape, init=init.kind, bound=init.bound))
            start = stop
        self.specs = tuple(specs)
        self.zero_grad()

    @contextmanager
    def computing_with(self, vector: torch.Tensor) -> Iterator[None]:
        """Let the model compute with `vector`, shape (parameters,), instead of `flat`.

        The gradients are set aside. All is as before afterwards.
        """
        before = [(parameter.data, parameter.grad) for _, parameter, _ in self.moved]
        start = 0
        try:
            for _, parameter, _ in self.moved:
                stop = start + parameter.numel()
                parameter.grad = None
                parameter.data = vector[start:stop].view(parameter.shape)
                start = stop
            yield
        finally:
            for (_, parameter, _), (data, grad) in zip(self.moved, before, strict=True):
                parameter.data, parameter.grad = data, grad

    def zero_grad(self) -> None:
        """Set `grad` to zero, and restore the views that the task's code has replaced."""
        self.grad.zero_()
        for _, parameter, view in self.moved:
            if parameter.requires_grad:
                parameter.grad = view

    def forget_grad(self) -> None:
        """Remove all gradients, so that `gather_grad` can count the parameters that get one."""
        self.grad.zero_()
        for _, parameter, _ in self.moved:
            parameter.grad = None

    def gather_grad(self) -> int:
        """Copy gradients that autograd or the task's code put elsewhere into `grad`.

        Returns how many parameters have a gradient.
        """
        have = 0
        for _, parameter, view in self.moved:
            found = parameter.grad
            if found is None:
                continue
            have += 1
            if found is not view:
                view.copy_(found.to_dense() if found.is_sparse else found)
                parameter.grad = view
        return have

    def grad_norm(self) -> torch.Tensor:
        """Return the Euclidean norm of `grad`, on the device."""
        norm: torch.Tensor = torch.linalg.vector_norm(self.grad)
        return norm
