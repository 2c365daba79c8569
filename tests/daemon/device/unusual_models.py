"""Tasks with unusual models: some are allowed, most are refused at their first step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hypergpu import Batch, TaskOptions
from tests.daemon.device.faulty_tasks import Line


class WithTable(torch.nn.Module):
    """A table that is not trained, like the sines of ViT-MAE, and a head that is."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.full((4, 4), 0.5), requires_grad=False)
        self.head = torch.nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x + self.table[0])


class Frozen(Line):
    def model(self) -> torch.nn.Module:
        return WithTable()


class Changing(Line):
    """Changes its model at the second call of loss(); `CHANGES` has the changes."""

    change = ""
    calls = 0

    def model(self) -> torch.nn.Module:
        return WithTable()

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        self.calls += 1
        if self.calls == 2:
            CHANGES[self.change](model)
        return super().loss(model, batch)


def _other_memory(model: torch.nn.Module) -> None:
    model.head.weight.data = model.head.weight.data.clone()


def _replaced(model: torch.nn.Module) -> None:
    model.head.weight = torch.nn.Parameter(model.head.weight.detach().clone())


def _added(model: torch.nn.Module) -> None:
    model.more = torch.nn.Linear(1, 1)


def _thawed(model: torch.nn.Module) -> None:
    model.table.requires_grad_(True)


def _frozen(model: torch.nn.Module) -> None:
    model.head.weight.requires_grad_(False)


def _moved_table(model: torch.nn.Module) -> None:
    model.table.add_(1)


def _removed(model: torch.nn.Module) -> None:
    model.head.bias = None


CHANGES = {
    "other memory": _other_memory,
    "replaced": _replaced,
    "added": _added,
    "thawed": _thawed,
    "frozen": _frozen,
    "table": _moved_table,
    "removed": _removed,
}


class Counts(torch.nn.Module):
    """Keeps statistics in a buffer, like BatchNorm, in a module of the author's own."""

    def __init__(self, persistent: bool) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1), persistent=persistent)
        self.line = torch.nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean.mul_(0.9).add_(0.1 * x.mean().detach())
        return self.line(x - self.mean)


class OwnStatistics(Line):
    def model(self) -> torch.nn.Module:
        return Counts(persistent=True)


class Unregistered(Line):
    """Its layers are in a plain list, where neither torch nor an optimizer finds them."""

    def model(self) -> torch.nn.Module:
        class Stack(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first = torch.nn.Linear(1, 2)
                self.layers = [torch.nn.Linear(2, 1)]

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.layers[0](self.first(x))

        return Stack()


class OwnTemperature(Line):
    """The task, not its model, has a tensor that requires a gradient."""

    def __init__(self, options: TaskOptions, data_folders: Sequence[str] = ()) -> None:
        super().__init__(options, data_folders)
        self.temperature = torch.ones((), requires_grad=True)

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return super().loss(model, batch) * self.temperature


class SharedMemory(Line):
    """Two different parameters share their memory."""

    def model(self) -> torch.nn.Module:
        first, second = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        second.weight.data = first.weight.data
        return torch.nn.Sequential(first, second)


class Tied(Line):
    """One parameter is in two places, which is allowed."""

    def model(self) -> torch.nn.Module:
        first, second = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        second.weight = first.weight
        return torch.nn.Sequential(first, second)


class OwnGradients(Line):
    """Removes the views of the gradients, as an author's own optimizer may."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        for part in model.parameters():
            part.grad = None
        return super().loss(model, batch)


class Evaluating(Line):
    """Its model is in eval mode: no dropout, and BatchNorm with fixed statistics."""

    def model(self) -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Linear(1, 4),
            torch.nn.BatchNorm1d(4),
            torch.nn.Dropout(0.9),
            torch.nn.Linear(4, 1),
        ).eval()


class Fourier(Line):
    """Random features: its buffer is drawn once."""

    def model(self) -> torch.nn.Module:
        class Features(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("projection", torch.randn(1, 8))
                self.head = torch.nn.Linear(8, 1)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(torch.sin(x @ self.projection))

        return Features()
