"""Makes a model's trained parameters views of one flat tensor. Worker process only.

Their gradients are views of another flat tensor. To load an anchor is one copy, to make a delta is
one subtraction, and to clip is one norm. Running statistics of BatchNorm are averaged as parameters
are: they follow the parameters in the flat tensor, without a gradient. Parameters with
`requires_grad = False` and other buffers keep their own memory, and the values that the task gave
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from daemon.device.model.author_code import author_code
from daemon.device.model.rules import batch_counts, check_model, running_statistics
from daemon.device.tasks.task import GIVEN, ONES, ZEROS, Init, Task
from protocol.ports.trainer import ParameterSpec


class FlatModel:
    """A model over the vectors `flat` and `grad`, shape (parameters,) on the device.

    `specs` describes the parameters. `moved` are the trained parameters with their names and their
    views of `grad`, and `averaged` the running statistics. `frozen` and `buffers` are the model's
    other tensors.
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
        self.averaged = list(running_statistics(self.model))
        averaged = {id(tensor) for _, tensor in self.averaged}
        counts = {id(count) for count in batch_counts(self.model)}
        self.buffers = [
            (name, buffer)
            for name, buffer in self.model.named_buffers()
            if id(buffer) not in averaged and id(buffer) not in counts
        ]
        # Where the running statistics begin.
        self._trained_size = sum(parameter.numel() for _, parameter in trained)
        total = self._trained_size + sum(tensor.numel() for _, tensor in self.averaged)
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
        for name, tensor in self.averaged:
            shape, stop = tuple(tensor.shape), start + tensor.numel()
            given = tensor.data
            tensor.data = self.flat[start:stop].view(shape)
            new = ONES if name.endswith("running_var") else ZEROS
            is_new = bool((given == float(new == ONES)).all())
            if not is_new:
                tensor.data.copy_(given)
            kind = new.kind if is_new else GIVEN.kind
            specs.append(ParameterSpec(name=name, shape=shape, init=kind))
            start = stop
        self.specs = tuple(specs)
        # All tensors of the flat vector in its order, with their names.
        self.vector = [*((name, part) for name, part, _ in self.moved), *self.averaged]
        self.zero_grad()

    @contextmanager
    def computing_with(self, vector: torch.Tensor) -> Iterator[None]:
        """Let the model compute with `vector`, shape (parameters,), instead of `flat`.

        The gradients are set aside. All is as before afterwards.
        """
        before = [(parameter.data, parameter.grad) for _, parameter, _ in self.moved]
        statistics = [tensor.data for _, tensor in self.averaged]
        start = 0
        try:
            for _, parameter, _ in self.moved:
                stop = start + parameter.numel()
                parameter.grad = None
                parameter.data = vector[start:stop].view(parameter.shape)
                start = stop
            for name, tensor in self.averaged:
                stop = start + tensor.numel()
                tensor.data = vector[start:stop].view(tensor.shape)
                # An average of encoded displacements may be a little below zero.
                if name.endswith("running_var"):
                    tensor.data = tensor.data.clamp(min=0.0)
                start = stop
            yield
        finally:
            for (_, parameter, _), (data, grad) in zip(self.moved, before, strict=True):
                parameter.data, parameter.grad = data, grad
            for (_, tensor), data in zip(self.averaged, statistics, strict=True):
                tensor.data = data

    @contextmanager
    def statistics_restored(self, *on: type[Exception]) -> Iterator[None]:
        """Restore the running statistics after a block, or only after exceptions of the types `on`.

        A forward pass changes them at once, also for a batch that then cannot be used.
        """
        kept = self.flat[self._trained_size :].clone() if self.averaged else None
        try:
            yield
        except on:
            self._restore(kept)
            raise
        finally:
            if not on:
                self._restore(kept)

    @torch.no_grad()
    def _restore(self, statistics: torch.Tensor | None) -> None:
        if statistics is not None:
            self.flat[self._trained_size :].copy_(statistics)

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
